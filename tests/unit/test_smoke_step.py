"""What the flow makes of a smoke test or a pre-gate that failed, where the stack has an operator library."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from pipeline import operators_step, stage_run, steps
from pipeline import release as flow_module
from pipeline.errors import StageRefusedError
from pipeline.smoke_result import Check, SmokeResult
from pipeline.steps import FLOW
from pipeline.world.operator_check import OperatorCheck
from tests.projects import toy_project
from tests.records import cpu_record
from tests.releases import Flow, read_log
from tests.unit.test_operator_check import check, operator, wrong

POET = ("abacus", "poet")
EMPTY = SmokeResult(
    checks=(Check(name="completion", passed=False, seen="''", seconds=1.0),),
    facts=None,
    server_log="INFO: all is well",
)
RIGHT = SmokeResult(
    checks=(Check(name="completion", passed=True, seen="'12'", seconds=1.0),), facts=None
)


def served_by(made: Flow, result: SmokeResult, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """Everything before the smoke test is there, and its server was seen to do this."""
    monkeypatch.setattr(flow_module, "FLOW", {**made.table(), "smoke": FLOW["smoke"]})
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    monkeypatch.setattr(steps, "check_whole", lambda *_: None)
    monkeypatch.setattr(steps, "expected_of_smoke", lambda *_: None)
    monkeypatch.setattr(steps, "smoke", lambda *_: result)
    monkeypatch.setattr(operators_step, "known_check", lambda *_: None)
    return made


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """A server that answers with an empty text."""
    return served_by(Flow(toy_project(tmp_path)), EMPTY, monkeypatch)


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """A server that answers rightly."""
    return served_by(Flow(toy_project(tmp_path)), RIGHT, monkeypatch)


def test_a_refusal_names_the_operators_that_compute_something_else(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def checked(*asked: object) -> object:
        seen.append(asked[1])
        return check(mul=wrong(7.0, 9)), flow.project.root / "out/operators/abacus/poet.json"

    monkeypatch.setattr(operators_step, "check_cell", checked)
    *_, last = flow.go(*POET, until="smoke")
    assert last.status == "failed"
    assert "''\noperator check: 1 operators checked in 3 calls (1 while serving), 1 wrong" in str(
        last.error
    )
    assert "operator check: mul wrong (2 of 2 checked calls while loading" in str(last.error)
    assert seen == ["fast"]
    assert len(smoked(flow).wrong_operators) == 2


def smoked(flow: Flow) -> SmokeResult:
    smoke = flow.record(*POET).stages.smoke
    assert smoke is not None
    assert smoke.result is not None
    return smoke.result


def checks_as(monkeypatch: pytest.MonkeyPatch, found: OperatorCheck) -> list[Any]:
    asked: list[Any] = []

    def checked(*words: object) -> object:
        asked.append(words)
        return found, Path("operators.json")

    monkeypatch.setattr(operators_step, "check_cell", checked)
    return asked


def test_operators_that_compute_like_the_cpu_are_kept_with_error_and_time(
    answering: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check(
        silu=operator(absolute_error=0.25, times_allowed=0.1),
        unused=operator(calls={}, checked={}, unchecked={}, fastest_ms=None),
    )
    asked = checks_as(monkeypatch, found)
    *_, last = answering.go(*POET, until="smoke")
    assert (last.status, last.error) == ("passed", None)
    result = smoked(answering)
    assert result.checks[-1].seen == "1 operators checked in 3 calls (1 while serving), 0 wrong"
    (row,) = result.operators
    assert (row.name, row.calls, row.checked, row.wrong) == ("silu", 12, 3, 0)
    assert (row.absolute_error, row.of_allowed, row.fastest_ms) == (0.25, 0.1, 0.2)
    assert row.unchecked == "checked often enough"
    assert result.wrong_operators == ()
    ((_, stack, _, operators, kernels),) = asked
    assert stack == "fast"
    assert operators.of(["mm", "gelu", "softmax"]) == {"mm"}, "exactly those of the release"
    assert kernels.parts[-1] == "fast"
    assert "silu " in read_log(answering, *POET, "smoke")


def test_an_operator_that_computes_something_else_refuses_a_server_that_answers_rightly(
    answering: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks_as(monkeypatch, check(mul=wrong(7.0, 9), silu=operator()))
    *_, last = answering.go(*POET, until="smoke")
    assert last.status == "failed"
    assert (
        "operators beside the CPU: 2 operators checked in 6 calls (2 while serving), 1 wrong; mul wrong"
        in str(last.error)
    )
    result = smoked(answering)
    assert [(row.name, row.wrong) for row in result.operators] == [("mul", 2), ("silu", 0)]
    assert str(last.error).count("mul wrong") == 1
    assert "out/operators/abacus/poet.json has the calls; nox -s bisect -- abacus poet" in str(
        last.error
    )


@pytest.mark.parametrize(
    "found",
    [
        check(),
        check(silu=operator(checked={}, failures={"RuntimeError: boom": 12})),
        check(silu=operator(checked={"loading": 2})),
    ],
)
def test_a_check_that_compared_nothing_while_serving_is_none(
    answering: Flow, monkeypatch: pytest.MonkeyPatch, found: OperatorCheck
) -> None:
    checks_as(monkeypatch, found)
    *_, last = answering.go(*POET, until="smoke")
    assert last.status == "failed"
    assert "none of them while a request was served; say with operators.unchecked" in str(
        last.error
    )


def test_a_check_that_was_cut_off_is_no_check(
    answering: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check(silu=operator()).model_copy(update={"refused": "the server died after 9 s"})
    checks_as(monkeypatch, found)
    *_, last = answering.go(*POET, until="smoke")
    assert last.status == "failed"
    assert (
        "1 operators checked in 3 calls (1 while serving), 0 wrong; the server died after 9 s"
        in str(last.error)
    )


def test_workers_that_wrote_no_check_refuse_too(
    answering: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = StageRefusedError(
        "no worker wrote a check", where="abacus/poet", details="it died", hint="mend it"
    )
    monkeypatch.setattr(operators_step, "check_cell", Mock(side_effect=silent))
    *_, last = answering.go(*POET, until="smoke")
    assert "operators beside the CPU: no worker wrote a check: it died; mend it" in str(last.error)


def test_our_own_fault_in_a_check_keeps_its_traceback(
    answering: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators_step, "check_cell", Mock(side_effect=TypeError("ours")))
    with pytest.raises(TypeError, match="ours"):
        answering.go(*POET, until="smoke")


def test_the_matrix_may_say_why_operators_are_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = "operators: {library: bead_operators, "
    edit = (library, f"{library}unchecked: beads have no CPU kernels, ")
    flow = served_by(Flow(toy_project(tmp_path, edit)), RIGHT, monkeypatch)
    monkeypatch.setattr(operators_step, "check_cell", Mock(side_effect=AssertionError))
    *_, last = flow.go(*POET, until="smoke")
    assert last.status == "passed"
    assert smoked(flow).operators_unchecked == "beads have no CPU kernels"
    assert "not compared: beads have no CPU kernels" in read_log(flow, *POET, "smoke")


def test_a_check_that_cannot_be_made_hides_no_refusal(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> object:
        raise StageRefusedError("no worker wrote a check of its operators", where="abacus/poet")

    monkeypatch.setattr(operators_step, "check_cell", refused)
    *_, last = flow.go(*POET, until="smoke")
    assert str(last.error).startswith("smoke of abacus/poet: completion: ''\nfrom the server's log")
    log = (flow.cell(*POET).folder / "smoke.log").read_text()
    assert "the operators could not be checked: abacus/poet: no worker wrote" in log


def test_an_image_that_was_checked_is_not_checked_again(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked_again(*_: object) -> object:
        raise AssertionError("it was checked")

    monkeypatch.setattr(operators_step, "known_check", lambda *_: check(mul=wrong(7.0, 9)))
    monkeypatch.setattr(operators_step, "check_cell", asked_again)
    *_, last = flow.go(*POET, until="smoke")
    assert "operator check: mul wrong" in str(last.error)


@pytest.mark.parametrize(("status", "named"), [("fail", True), ("invalid", False), ("pass", False)])
def test_a_pre_gate_that_fails_names_the_operators_too(
    flow: Flow, monkeypatch: pytest.MonkeyPatch, status: str, named: bool
) -> None:
    measured = cpu_record().stages.accuracy
    assert measured is not None
    assert measured.result is not None
    assert measured.result.logits is not None
    logits = measured.result.logits.model_copy(update={"status": status})
    result = measured.result.model_copy(update={"logits": logits})
    monkeypatch.setattr(flow_module, "FLOW", {**flow.table(), "accuracy": FLOW["accuracy"]})
    monkeypatch.setattr(steps, "accuracy", lambda *_: ("failed", result, "no item was asked"))
    monkeypatch.setattr(operators_step, "known_check", lambda *_: check(mul=wrong(7.0, 9)))
    *_, last = flow.go(*POET, until="accuracy")
    assert (last.stage, last.status) == ("accuracy", "failed")
    assert str(last.error).startswith("accuracy of abacus/poet: no item was asked")
    assert ("operator check: mul wrong" in str(last.error)) == named
