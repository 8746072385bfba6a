"""The hook that loads an operator library into a worker: exactly what is asked for, or no server."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pytest
from flagrelease_serving.operators import WRITE_EVERY_S, Asked, OperatorError, Operators, asked_by

from pipeline.errors import WorldError
from pipeline.gate.operators import operator_faults
from pipeline.operator_evidence import AskedOperators, stack_operators, total_calls
from pipeline.world.operators import (
    LAST_COUNTS_S,
    OperatorEvidence,
    look_at_operators,
    read_evidence,
)
from tests.fakes import FakeContainer, FakeImage
from tests.projects import committed
from tests.trials.stacks import CASES, LIBRARY

SERVING = Path(__file__).parents[2] / "images/serving"


class Abacus:
    """A library outside torch's dispatcher."""

    BACKEND = "CPU"

    def __init__(self, *, broken: str = "", stubborn: str = "") -> None:
        self.broken = broken
        self.stubborn = stubborn
        self.on: set[str] = set()
        self.counts: dict[str, int] = {}

    def available(self) -> Mapping[str, Sequence[str]]:
        return {"add": (), "carry": (), "slide": ()}

    def enable(self, include: Collection[str], exclude: Collection[str]) -> None:
        asked = set(include) or self.available().keys() - set(exclude)
        self.on = (asked - {self.broken}) | ({self.stubborn} - {""})

    def registered(self) -> Collection[str]:
        return self.on

    def calls(self) -> Mapping[str, int]:
        return self.counts


def switched(library: Abacus, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> set[str]:
    operators = Operators(library, "abacus", rank=3)
    operators.switch(include, exclude)
    return set(operators.registered)


def refusal(library: Abacus, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> str:
    with pytest.raises(OperatorError) as refused:
        switched(library, include, exclude)
    return str(refused.value)


def test_without_a_library_named_nothing_is_asked_for() -> None:
    assert asked_by({"VLLM_FL_FLAGOS_BLACKLIST": "add"}) is None


def test_the_variables_say_library_lists_and_where_evidence_goes() -> None:
    environment = {
        "FLAGRELEASE_OPERATORS": "abacus",
        "FLAGRELEASE_OPERATORS_EVIDENCE": "/evidence",
        "VLLM_FL_FLAGOS_BLACKLIST": "add, carry,",
    }
    assert asked_by(environment) == Asked(
        library="abacus", include=(), exclude=("add", "carry"), evidence=Path("/evidence")
    )


def test_both_lists_at_once_are_refused_as_the_plugin_refuses_them() -> None:
    both = {"VLLM_FL_FLAGOS_WHITELIST": "add", "VLLM_FL_FLAGOS_BLACKLIST": "carry"}
    with pytest.raises(OperatorError, match="are both set"):
        asked_by({"FLAGRELEASE_OPERATORS": "abacus", **both})


@pytest.mark.parametrize(
    ("include", "exclude", "on"),
    [
        ((), (), {"add", "carry", "slide"}),
        (("add",), (), {"add"}),
        ((), ("add",), {"carry", "slide"}),
    ],
)
def test_what_is_asked_for_is_on(
    include: tuple[str, ...], exclude: tuple[str, ...], on: set[str]
) -> None:
    assert switched(Abacus(), include, exclude) == on


def test_an_unknown_name_is_refused_in_either_list() -> None:
    assert refusal(Abacus(), ["multiply"]) == "abacus has no operators called multiply"
    assert refusal(Abacus(), [], ["divide"]) == "abacus has no operators called divide"


def test_fewer_operators_than_asked_for_are_refused() -> None:
    assert refusal(Abacus(broken="carry")) == ("abacus registered 2 of 3 operators, without carry")
    assert refusal(Abacus(broken="add"), ["add"]) == (
        "abacus registered 0 of 1 operators, without add"
    )


def test_an_excluded_operator_that_is_on_is_refused() -> None:
    assert refusal(Abacus(stubborn="carry"), [], ["carry"]) == (
        "abacus registered operators that were not asked for: carry"
    )
    assert refusal(Abacus(stubborn="slide"), ["add"]) == (
        "abacus registered operators that were not asked for: slide"
    )


def test_excluding_everything_leaves_nothing_to_serve_and_is_refused() -> None:
    assert refusal(Abacus(), [], ["add", "carry", "slide"]) == (
        "abacus registered 0 of 0 operators, without any"
    )


def test_a_search_for_culprits_may_leave_nothing_on() -> None:
    operators = Operators(Abacus(), "abacus", rank=0)
    operators.switch([], ["add", "carry", "slide"], may_be_none=True)
    assert operators.registered == ()
    probe = {"FLAGRELEASE_OPERATORS": "abacus", "FLAGRELEASE_OPERATORS_PROBE": "1"}
    asked = asked_by(probe)
    assert asked is not None
    assert asked.is_probe


def test_operators_can_be_switched_again_while_serving() -> None:
    operators = Operators(Abacus(), "abacus", rank=3)
    operators.switch([], ["add"])
    operators.switch(["add"], [])
    assert operators.registered == ("add",)


def test_in_the_dispatcher_only_the_dispatcher_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlagGems notes an operator before it registers it, and only logs where that fails."""
    kernels = {"aten::mm": "RegisterCUDA.cpp", "aten::mul": "RegisterCUDA.cpp", "aten::mul_": "x"}
    monkeypatch.setattr("flagrelease_serving.operators._kernel", lambda at, _: kernels[at])

    class Gems(Abacus):
        def available(self) -> Mapping[str, Sequence[str]]:
            return {"mm": ("aten::mm",), "mul": ("aten::mul", "aten::mul_")}

        def enable(self, include: Collection[str], exclude: Collection[str]) -> None:
            self.on = {"mm", "mul"}
            kernels.update({"aten::mm": "gems.py", "aten::mul": "gems.py"})

    assert refusal(Gems()) == "abacus registered 1 of 2 operators, without mul"


def test_the_evidence_says_what_is_on_and_how_often_it_ran(tmp_path: Path) -> None:
    library = Abacus()
    operators = Operators(library, "abacus", rank=3)
    operators.switch([], ["slide"])
    library.counts = {"add": 7}
    operators.keep_evidence(tmp_path / "deep" / "evidence")
    (path,) = (tmp_path / "deep" / "evidence").glob("rank3.*.json")
    found = OperatorEvidence.model_validate_json(path.read_bytes())
    assert (found.registered, found.calls, found.exclude) == (
        ("add", "carry"),
        {"add": 7},
        ("slide",),
    )
    assert (found.available, found.dispatcher, found.ended) == (3, {}, False)


WORKER = """
import multiprocessing, os, sys, time
from pathlib import Path
from flagrelease_serving import operators
operators.WRITE_EVERY_S = 0.05

class Abacus:
    BACKEND = "CPU"
    def __init__(self): self.counts = {}
    def available(self): return {"add": ()}
    def enable(self, include, exclude): pass
    def registered(self): return {"add"}
    def calls(self): return self.counts

def work(how):
    library = Abacus()
    loaded = operators.Operators(library, "abacus", rank=3)
    loaded.switch([], [])
    loaded.keep_evidence(Path(sys.argv[1]))
    library.counts["add"] = 1
    time.sleep(0.3)
    if how == "killed":
        os.kill(os.getpid(), 9)
    library.counts["add"] = 2

worker = multiprocessing.get_context(sys.argv[2]).Process(target=work, args=(sys.argv[3],))
worker.start()
worker.join()
"""


@pytest.mark.parametrize(
    ("how", "calls", "ended"), [("killed", {"add": 1}, False), ("returns", {"add": 2}, True)]
)
def test_a_killed_worker_leaves_its_last_evidence_and_an_ended_one_all_of_it(
    tmp_path: Path, how: str, calls: dict[str, int], ended: bool
) -> None:
    subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path), "fork", how],
        env={"PYTHONPATH": str(SERVING)},
        timeout=30,
        check=True,
    )
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text("utf-8"))
    assert (found["calls"], found["ended"]) == (calls, ended)
    assert found["written"] <= time.time()


class Wrote(FakeImage):
    """A container in which workers left this."""

    def __init__(self, *processes: Mapping[str, object]) -> None:
        self.evidence = processes

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        assert command[-1] == "/var/lib/flagscale/poet_fast/operators"
        return 0, json.dumps(self.evidence)


def process(**more: object) -> dict[str, object]:
    library = Abacus()
    operators = Operators(library, "abacus", rank=3)
    operators.switch([], [])
    library.counts = {"add": 2}
    return {**operators.evidence(), **more}


def evidence_of(*processes: Mapping[str, object]) -> tuple[OperatorEvidence, ...]:
    container = FakeContainer("toy", Wrote(*processes), ["sleep", "infinity"])
    return read_evidence(container, "/var/lib/flagscale/poet_fast/operators")


class RunsHere(FakeImage):
    """A container whose Python is this one, and whose folders are those of this machine."""

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        ran = subprocess.run(
            [sys.executable, *command[1:]], capture_output=True, text=True, timeout=30, check=False
        )
        return ran.returncode, ran.stdout + ran.stderr


def test_what_the_hook_writes_is_found_in_any_folder_of_the_cell_and_holds_what_was_asked(
    tmp_path: Path,
) -> None:
    library, waited = Abacus(), list[float]()
    operators = Operators(library, "abacus", rank=3)
    operators.switch([], ["slide"])
    library.counts = {"add": 2}
    operators.keep_evidence(tmp_path / "fast")
    container = FakeContainer("toy", RunsHere(), ["sleep", "infinity"])
    folders = [str(tmp_path / stack) for stack in ("slow", "fast")]
    look = look_at_operators(container, folders, wait=True, sleep=waited.append)
    assert waited == [LAST_COUNTS_S]
    assert WRITE_EVERY_S < LAST_COUNTS_S
    asked = AskedOperators(library="abacus", exclude=("slide",))
    seen = {"slow": stack_operators(None, ((),)), "fast": stack_operators(asked, (look,))}
    assert seen["fast"].registered == ("add", "carry")
    assert seen["fast"].ran == ("add",)
    assert list(operator_faults(seen, ("slow", "fast"))) == []
    assert look_at_operators(container, folders[:1], wait=False) == ()


def test_a_reading_that_fails_is_not_taken_for_no_evidence(tmp_path: Path) -> None:
    (tmp_path / "rank0.1.json").write_text("{", "utf-8")
    container = FakeContainer("toy", RunsHere(), ["sleep", "infinity"])
    with pytest.raises(WorldError, match="cannot be read"):
        read_evidence(container, str(tmp_path))


def test_calls_are_added_up_over_the_processes_of_a_stack() -> None:
    found = evidence_of(process(), process(rank=1, calls={"add": 1, "carry": 5}))
    assert total_calls(found) == {"add": 3, "carry": 5}
    assert evidence_of() == ()


def test_evidence_of_another_version_is_a_clear_error() -> None:
    with pytest.raises(WorldError, match=r"evidence .* cannot be read") as refused:
        evidence_of(process(evidence_schema=2))
    assert refused.value.hint == (
        "the image's images/serving/ is of another version than this pipeline"
    )


def test_every_fault_of_the_planted_library_is_on_trial() -> None:
    tree = ast.parse(LIBRARY.read_text("utf-8"))
    (faults,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "FAULTS"
    )
    assert isinstance(faults, ast.Dict)
    names = {ast.literal_eval(key) for key in faults.keys if key}
    assert {case.fault for case in CASES} - {""} == names


def test_planted_operators_stay_out_of_the_real_matrix() -> None:
    chips = committed().matrix.chips.values()
    libraries = {s.operators.library for chip in chips for s in chip.stacks.values() if s.operators}
    assert libraries == {"flagrelease_serving.flaggems"}
