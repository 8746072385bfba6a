"""What the flow makes of a smoke test or a pre-gate that failed, where the stack has an operator library."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import release as flow_module
from pipeline import stage_run, steps
from pipeline.errors import StageRefusedError
from pipeline.probes import cell_check
from pipeline.results import Check, SmokeResult
from pipeline.steps import FLOW
from tests.projects import toy_project
from tests.records import cpu_record
from tests.releases import Flow
from tests.unit.test_operator_check import check, wrong

POET = ("abacus", "poet")
EMPTY = SmokeResult(
    checks=(Check(name="completion", passed=False, seen="''", seconds=1.0),),
    facts=None,
    server_log="INFO: all is well",
)


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """A server that answers with an empty text."""
    made = Flow(toy_project(tmp_path))
    monkeypatch.setattr(flow_module, "FLOW", {**made.table(), "smoke": FLOW["smoke"]})
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    monkeypatch.setattr(steps, "check_whole", lambda *_: None)
    monkeypatch.setattr(steps, "expected_of_smoke", lambda *_: None)
    monkeypatch.setattr(steps, "smoke", lambda *_: EMPTY)
    monkeypatch.setattr(cell_check, "known_check", lambda *_: None)
    return made


def test_a_refusal_names_the_operators_that_compute_something_else(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def checked(*asked: object) -> object:
        seen.append(asked[1])
        return check(mul=wrong(7.0, 9)), flow.project.root / "out/operators/abacus/poet.json"

    monkeypatch.setattr(cell_check, "check_cell", checked)
    *_, last = flow.go(*POET, until="smoke")
    assert last.status == "failed"
    assert "''\noperator check: 1 operators checked in 3 calls, 1 wrong" in str(last.error)
    assert "operator check: mul wrong (2 of 3 checked calls while loading" in str(last.error)
    assert seen == ["fast"]
    smoke = flow.record(*POET).stages.smoke
    assert smoke is not None
    assert smoke.result is not None
    assert len(smoke.result.wrong_operators) == 2


def test_a_check_that_cannot_be_made_hides_no_refusal(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> object:
        raise StageRefusedError("no worker wrote a check of its operators", where="abacus/poet")

    monkeypatch.setattr(cell_check, "check_cell", refused)
    *_, last = flow.go(*POET, until="smoke")
    assert str(last.error).startswith("smoke of abacus/poet: completion: ''\nfrom the server's log")
    log = (flow.cell(*POET).folder / "smoke.log").read_text()
    assert "the operators could not be checked: abacus/poet: no worker wrote" in log


def test_an_image_that_was_checked_is_not_checked_again(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked_again(*_: object) -> object:
        raise AssertionError("it was checked")

    monkeypatch.setattr(cell_check, "known_check", lambda *_: check(mul=wrong(7.0, 9)))
    monkeypatch.setattr(cell_check, "check_cell", asked_again)
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
    monkeypatch.setattr(cell_check, "known_check", lambda *_: check(mul=wrong(7.0, 9)))
    *_, last = flow.go(*POET, until="accuracy")
    assert (last.stage, last.status) == ("accuracy", "failed")
    assert str(last.error).startswith("accuracy of abacus/poet: no item was asked")
    assert ("operator check: mul wrong" in str(last.error)) == named
