"""smoke: the image served for real, every check with what was seen. A healthy server is no evidence of a right one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.cell import Cell
from pipeline.checks import Checks, Outcome
from pipeline.chip import Smi
from pipeline.errors import WorldError
from pipeline.operator_evidence import ran, total_calls
from pipeline.results import Start
from pipeline.smoke_result import Facts, Sight, SmokeResult
from pipeline.world import api_checks as api
from pipeline.world.engine import Engine
from pipeline.world.engine_container import Container
from pipeline.world.first_minutes import first_minutes
from pipeline.world.node import card_names, driver_in
from pipeline.world.openai import OpenAI
from pipeline.world.operators import look_at_operators
from pipeline.world.server import Launch, Served, refuse_taken_port, serving, stop_server

STOP_PATIENCE_S = 60
CORES = "import os; print(os.cpu_count(), 'cores')"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the image must hold and what its server must do."""

    packages: Mapping[str, str]  # distribution → version, from the requirement lock
    smi: Smi | None  # the vendor's tool
    cards: int  # that serving takes
    prompt: str
    answer: str
    tokens_per_s_floor: float


def smoke(
    cell: Cell, launch: Launch, engine: Engine, expected: Expected, say: Callable[[str], None]
) -> SmokeResult:
    """Serve the released stack once and look at everything. Never raises for what the image does wrong.

    Raises WorldError when the machine is why the server died.
    """
    checks = Checks(say)
    with serving(engine, launch, say) as served:
        ai = OpenAI(served.base_url, cell.served_name)
        starts, sights = list[Start](), list[Sight]()
        checks.run("completion", lambda: _first_answer(cell, served, starts))
        inside = _inside(served.container)
        checks.run("devices", lambda: _devices(served.container, expected))
        checks.run("versions", lambda: _versions(inside["packages"], expected.packages))
        checks.run("no profile", lambda: _no_profile(engine, launch))
        checks.run("model list", lambda: api.model_list(ai))
        if checks.all_passed():
            checks.run("same answer twice", lambda: api.same_answer_twice(ai, expected.prompt))
            checks.run("streaming", lambda: api.streaming(ai, expected.prompt))
            checks.run("logprobs", lambda: api.logprobs(ai, expected.prompt))
            checks.run("wrong model name", lambda: api.wrong_model(ai))
            checks.run("long prompt", lambda: api.long_prompt(ai))
            checks.run(f"{api.AT_ONCE} at once", lambda: api.at_once(ai, expected.prompt))
            if cell.model.sees:
                checks.run("pictures", lambda: api.pictures(ai, cell.model.chat, sights))
            rate = api.rate(ai)
            checks.run("speed", lambda: _fast_enough(rate, expected.tokens_per_s_floor))
            operators = _operators(cell, served.container)
            if operators is not None:
                checks.run("operators ran", lambda: _operators_ran(operators))
            facts = _facts(
                cell,
                launch,
                engine,
                served,
                inside,
                first_s=round(starts[0].answered_seconds - starts[0].ready_seconds, 1),
                rate=rate,
                max_model_len=api.longest(ai),
                operators=operators,
            )
            checks.run("clean stop", lambda: stop_server(served, patience_s=STOP_PATIENCE_S))
        else:
            facts = None
        if not checks.all_passed():
            served.refuse_known_end()
        server_log = served.log_errors()
    checks.run("nothing left", lambda: _nothing_left(engine, launch))
    return SmokeResult(
        checks=tuple(checks.done),
        facts=facts,
        server_log="" if checks.all_passed() else server_log,
        starts=tuple(starts),
        sights=tuple(sights),
    )


def _devices(container: Container, expected: Expected) -> Outcome:
    """The tool of the chip works inside, and finds as many cards as serving takes."""
    smi = expected.smi
    command = smi.command.split() if smi else ["python", "-c", CORES]
    code, output = container.execute(command)
    seen = output.strip()[:400]
    if code != 0 or not seen or smi is None or smi.count is None:
        return code == 0 and bool(seen), seen
    _, counted = container.execute(["sh", "-c", smi.count])
    number = counted.strip()
    enough = number.isdecimal() and int(number) >= expected.cards
    return enough, seen if enough else f"{number or 'no'} cards instead of {expected.cards}: {seen}"


def _versions(found: Mapping[str, str], locked: Mapping[str, str]) -> Outcome:
    wrong = [
        f"{name} {found.get(name, 'absent')} instead of {version}"
        for name, version in sorted(locked.items())
        if found.get(name) != version
    ]
    return not wrong, "; ".join(wrong[:10]) or f"{len(locked)} packages equal the lock"


def _no_profile(engine: Engine, launch: Launch) -> Outcome:
    code, output = engine.run_once(
        launch.image,
        ["python", "-c", "import sys, torch; print(sys.executable, torch.__version__)"],
        run=launch.run,
        name=f"{launch.name}-plain",
        volumes={},
    )
    return code == 0, output.strip()[-400:]


def _first_answer(cell: Cell, served: Served, starts: list[Start]) -> Outcome:
    """Asked before anything else, for a reader of the card asks it first, too."""
    stack, smoke = cell.chip.released, cell.model.smoke
    starts.append(first_minutes(stack, served, cell.served_name, smoke, "none"))
    return starts[0].is_good, starts[0].answer


def _fast_enough(rate: float, floor: float) -> Outcome:
    return rate >= floor, f"{rate:.1f} tokens/s, at least {floor:g} wanted"


def _operators(cell: Cell, container: Container) -> tuple[str, ...] | None:
    """Operators that ran since the server is up; None for a stack without a library."""
    if cell.asked_operators(cell.chip.released) is None:
        return None
    folder = cell.operator_evidence(cell.chip.released)
    return ran(total_calls(look_at_operators(container, [folder], wait=True)))


def _operators_ran(operators: Sequence[str]) -> Outcome:
    if not operators:
        return False, "the stack has an operator library, and none of its operators ran"
    return True, f"{len(operators)} operators ran: {', '.join(operators)}"[:400]


def _nothing_left(engine: Engine, launch: Launch) -> Outcome:
    if engine.has_container(launch.name):
        return False, f"the container {launch.name} is still there"
    try:
        refuse_taken_port(launch.port)
    except WorldError as error:
        return False, error.message
    return True, f"container removed, port {launch.port} free"


# Read in the container, without importing torch: names and versions come from the installed metadata.
_INSIDE = r"""
import importlib.metadata, json, pathlib, platform, re
os_release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', pathlib.Path("/etc/os-release").read_text(), re.M))
packages = {re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version for d in importlib.metadata.distributions()}
print(json.dumps({"os": os_release["PRETTY_NAME"], "python": platform.python_version(), "packages": packages}))
"""


def _inside(container: Container) -> dict[str, Any]:
    code, output = container.execute(["python", "-c", _INSIDE])
    lines = output.strip().splitlines()
    if code != 0 or not lines:
        return {"os": "", "python": "", "packages": {}}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def _facts(
    cell: Cell,
    launch: Launch,
    engine: Engine,
    served: Served,
    inside: Mapping[str, Any],
    *,
    first_s: float,
    rate: float,
    max_model_len: int,
    operators: tuple[str, ...] | None,
) -> Facts:
    host = engine.host()
    image = engine.pull(launch.image)
    chip_name, driver = _chip(cell, served.container, host.cpu)
    return Facts(
        chip_name=chip_name,
        driver=driver,
        host_os=host.system,
        host_kernel=host.kernel,
        host_cpu=host.cpu,
        host_cores=host.cores,
        host_memory_bytes=host.memory_bytes,
        docker_version=engine.version,
        image_os=inside["os"],
        python_version=inside["python"],
        packages=inside["packages"],
        served_name=cell.served_name,
        port=launch.port,
        start_seconds=round(served.ready_seconds, 1),
        flagscale_returned_seconds=round(served.launcher_seconds, 1),
        first_completion_seconds=first_s,
        tokens_per_second=round(rate, 1),
        max_model_len=max_model_len,
        image_size_bytes=image.size_bytes,
        operators=operators,
    )


def _chip(cell: Cell, container: Container, cpu: str) -> tuple[str, str | None]:
    """Name and driver of the chip as its own tool prints them; the processor where there is no tool."""
    if cell.chip.smi is None:
        return cpu, None
    code, output = container.execute(cell.chip.smi.command.split())
    if code != 0:
        return "", None
    return next(iter(card_names(cell.chip, output)), ""), driver_in(output)
