"""Several cells through the flow: each alone up to its card, then all of them out, or none."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline import release as flow_module
from pipeline import stage_run
from pipeline.cell_release import CellRelease, Ended
from pipeline.errors import StageRefusedError
from pipeline.record import STAGES, StageName
from pipeline.release import release_cells
from pipeline.reporter import StageLog
from pipeline.stage_run import Outcome, end
from pipeline.stages.withdraw import Withdrawal, rollback
from pipeline.waiver import Waiver
from tests.projects import toy_project
from tests.releases import RELEASE, Flow, finished

PUBLIC = {
    cell: f"toys/flagrelease_{cell.replace('/', '_')}" for cell in ("abacus/poet", "loom/poet")
}
# Both cells are of one model and of chips without cards: one weights folder, one processor, one port.
IN_TURNS: tuple[StageName, ...] = ("weights", "smoke", "accuracy", "performance", "rehearse")


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    made = Flow(toy_project(tmp_path))
    monkeypatch.setattr(flow_module, "FLOW", made.table())
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)  # told weights lie nowhere
    return made


def fails_for_loom(flow: Flow, monkeypatch: pytest.MonkeyPatch, stage: StageName) -> None:
    before = flow.table()

    def run(going: CellRelease, log: StageLog) -> Ended:
        if going.cell.chip_id == "loom":
            raise StageRefusedError("broken", where=going.cell.id)
        return before[stage](going, log)

    monkeypatch.setattr(flow_module, "FLOW", {**before, stage: run})


def go(
    flow: Flow,
    *,
    allow_partial: bool = False,
    fail_fast: bool = False,
    waiver: Waiver | None = None,
) -> list[Outcome]:
    runs = [flow.cell(*cell.split("/")) for cell in PUBLIC]
    first = runs[0]
    about = first.inputs.about.model_copy(update={"waiver": waiver})
    first.inputs = replace(first.inputs, about=about)
    first.record = first.record.model_copy(update={"about": about})
    return release_cells(
        runs, "publish", again=False, allow_partial=allow_partial, fail_fast=fail_fast
    )


def ends(outcomes: list[Outcome], stage: StageName) -> dict[str, str]:
    return {done.cell: done.status for done in outcomes if done.stage == stage}


def tags(flow: Flow) -> list[tuple[str, ...]]:
    return [flow.registry.tags(public) for public in PUBLIC.values()]


def test_two_cells_go_out_in_one_step_and_then_publish_their_cards(flow: Flow) -> None:
    outcomes = go(flow)
    assert ends(outcomes, "promote") == ends(outcomes, "publish") == dict.fromkeys(PUBLIC, "passed")
    assert tags(flow) == [(RELEASE, "latest")] * 2
    first, second = (flow.record(*cell.split("/")).stages.promote for cell in PUBLIC)
    assert first is not None
    assert second is not None
    assert first.result is not None
    assert second.result is not None
    assert first.result.index == second.result.index
    index = flow.cell("abacus", "poet").shelf.index(RELEASE)
    assert index is not None
    assert [cell.cell for cell in index.cells] == list(PUBLIC)
    assert (flow.project.store.root / RELEASE / "promote.log").exists()


def test_a_cell_that_stopped_before_holds_the_others_back(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_for_loom(flow, monkeypatch, "smoke")
    outcomes = go(flow)
    (waiting,) = [done for done in outcomes if done.stage == "promote"]
    assert (waiting.cell, waiting.status) == ("abacus/poet", "not done")
    assert waiting.why == "waits for loom/poet (smoke: failed); --allow-partial promotes without"
    assert tags(flow) == [(), ()]
    assert flow.record("abacus", "poet").stages.promote is None
    assert ends(outcomes, "publish") == {}


def test_a_part_goes_out_when_asked_and_says_who_is_missing(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_for_loom(flow, monkeypatch, "smoke")
    outcomes = go(flow, allow_partial=True)
    assert ends(outcomes, "publish") == {"abacus/poet": "passed"}
    assert tags(flow) == [(RELEASE, "latest"), ()]
    promoted = flow.record("abacus", "poet").stages.promote
    assert promoted is not None
    assert promoted.result is not None
    assert promoted.result.left_out == ("loom/poet: smoke: failed",)


def test_the_cell_that_was_missing_follows_under_the_same_name(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_for_loom(flow, monkeypatch, "smoke")
    go(flow, allow_partial=True)
    monkeypatch.setattr(flow_module, "FLOW", flow.table())
    outcomes = go(flow)
    assert ends(outcomes, "promote") == {"abacus/poet": "reused", "loom/poet": "passed"}
    assert tags(flow) == [(RELEASE, "latest")] * 2


def test_an_undecided_accuracy_that_is_waived_goes_on_to_promotion(flow: Flow) -> None:
    measured = finished().stages.accuracy
    assert measured is not None
    assert measured.result is not None
    flow.ends["accuracy"] = ("inconclusive", measured.result, "too few items")
    waiver = Waiver(
        cell="abacus/poet",
        by="Ada",
        reason="too few items",
        expires=datetime.now(UTC).date() + timedelta(days=1),
    )
    outcomes = go(flow, waiver=waiver, allow_partial=True)
    assert ends(outcomes, "accuracy") == dict.fromkeys(PUBLIC, "inconclusive")
    assert ends(outcomes, "promote") == {"abacus/poet": "passed"}
    promoted = flow.record("abacus", "poet").stages.promote
    assert promoted is not None
    assert promoted.result is not None
    assert promoted.result.waiver == waiver.sentence
    assert ends(outcomes, "publish") == {"abacus/poet": "passed"}
    (told,) = [done for done in outcomes if done.cell == "abacus/poet" and done.stage == "accuracy"]
    assert (told.error, told.why) == (None, f"{waiver.sentence}; too few items")
    again = go(flow, waiver=waiver, allow_partial=True)
    assert {done.status for done in again if done.cell == "abacus/poet"} == {"reused"}


@pytest.mark.parametrize("status", ["failed", "inconclusive"])
def test_a_failed_accuracy_or_one_whose_waiver_ended_stops_the_cell(
    flow: Flow, status: Literal["failed", "inconclusive"]
) -> None:
    measured = finished().stages.accuracy
    assert measured is not None
    assert measured.result is not None
    flow.ends["accuracy"] = (status, measured.result, "worse")
    days = 1 if status == "failed" else -1
    last = datetime.now(UTC).date() + timedelta(days=days)
    waiver = Waiver(cell="abacus/poet", by="Ada", reason="a reason", expires=last)
    outcomes = go(flow, waiver=waiver, allow_partial=True)
    assert {done.stage for done in outcomes if done.cell == "abacus/poet"} == {
        *("render", "build", "weights", "smoke", "accuracy")
    }
    assert tags(flow) == [(), ()]


def test_promotion_alone_stops_at_what_a_record_says_did_not_pass(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_for_loom(flow, monkeypatch, "smoke")
    runs = [flow.cell(*cell.split("/")) for cell in PUBLIC]
    release_cells(runs, "attest", again=False, allow_partial=False)
    for allow_partial in (False, True):
        again = [flow.cell(*cell.split("/")) for cell in PUBLIC]
        outcomes = release_cells(
            again, "promote", since="attest", again=False, allow_partial=allow_partial
        )
        (stuck,) = [done for done in outcomes if done.cell == "loom/poet"]
        assert (stuck.stage, stuck.status) == ("smoke", "failed")
        assert (stuck.error is None) is allow_partial
        promoted = ends(outcomes, "promote")["abacus/poet"]
        assert promoted == ("passed" if allow_partial else "not done")
    assert tags(flow) == [(RELEASE, "latest"), ()]


def test_a_cell_whose_record_never_came_is_left_out_by_name(flow: Flow) -> None:
    first = flow.cell("abacus", "poet")
    release_cells([first], "attest", again=False, allow_partial=False)
    outcomes = release_cells(
        [flow.cell("abacus", "poet")],
        "promote",
        since="attest",
        again=False,
        allow_partial=True,
        absent={"loom/poet": "no record of it came here"},
    )
    assert ends(outcomes, "promote") == {"abacus/poet": "passed"}
    index = first.shelf.index(RELEASE)
    assert index is not None
    assert index.left_out == ("loom/poet: no record of it came here",)


def test_a_release_that_was_rolled_back_is_refused_by_the_flow(flow: Flow) -> None:
    go(flow)
    run = flow.cell("abacus", "poet")
    given = Withdrawal(release=RELEASE, by="Ada", reason="wrong answers", time="2026-11-25")
    rollback(given, run.shelf, say=lambda _: None)
    outcomes = go(flow)
    assert ends(outcomes, "promote") == dict.fromkeys(PUBLIC, "withdrawn")
    assert any("was rolled back" in str(done.error) for done in outcomes)
    public = [flow.registry.head(name, RELEASE) for name in PUBLIC.values()]
    assert public == [None, None]


def test_stages_that_share_something_take_turns_and_all_others_go_side_by_side(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, inside, most = flow.table(), Counter[StageName](), Counter[StageName]()
    side_by_side = threading.Barrier(len(PUBLIC), timeout=10)

    def watched(stage: StageName, going: CellRelease, log: StageLog) -> Ended:
        inside[stage] += 1
        if stage not in IN_TURNS:
            side_by_side.wait()
        time.sleep(0.01)
        most[stage] = max(most[stage], inside[stage])
        inside[stage] -= 1
        return table[stage](going, log)

    watching = {stage: partial(watched, stage) for stage in table}
    monkeypatch.setattr(flow_module, "FLOW", watching)
    assert {done.status for done in go(flow)} == {"passed"}
    assert {stage: most[stage] for stage in IN_TURNS} == dict.fromkeys(IN_TURNS, 1)
    rest = [stage for stage in table if stage not in IN_TURNS]
    assert {stage: most[stage] for stage in rest} == dict.fromkeys(rest, len(PUBLIC))


def test_outcomes_are_told_by_cell_in_the_order_of_the_cells_and_stages(flow: Flow) -> None:
    told = [
        (done.cell, done.stage) for done in go(flow) if done.stage not in ("promote", "publish")
    ]
    alone = STAGES[: STAGES.index("promote")]
    assert told == [(cell, stage) for cell in PUBLIC for stage in alone]


def test_with_fail_fast_nothing_begins_after_the_first_failure_and_what_runs_is_finished(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """loom fails in build while abacus builds too: abacus ends its build, which is recorded, and stops."""
    table, building = flow.table(), threading.Event()
    failed = threading.Event()

    def build(going: CellRelease, log: StageLog) -> Ended:
        if going.cell.chip_id == "loom":
            building.wait(timeout=10)
            raise StageRefusedError("broken", where=going.cell.id)
        building.set()
        failed.wait(timeout=10)
        return table["build"](going, log)

    def ended(*words: Any) -> Outcome:
        outcome = end(*words)
        if outcome.status == "failed":
            # The cell's thread adds it to what has stopped right after this; the other one is waited for below.
            threading.Timer(0.2, failed.set).start()
        return outcome

    monkeypatch.setattr(flow_module, "FLOW", {**table, "build": build})
    monkeypatch.setattr(flow_module, "end", ended)
    outcomes = go(flow, fail_fast=True)
    by_cell = {cell: [(d.stage, d.status) for d in outcomes if d.cell == cell] for cell in PUBLIC}
    assert by_cell == {
        "abacus/poet": [("render", "passed"), ("build", "passed"), ("weights", "not done")],
        "loom/poet": [("render", "passed"), ("build", "failed")],
    }
    (last,) = [done.why for done in outcomes if done.stage == "weights"]
    assert last == "--fail-fast: build of loom/poet ended failed"
    assert flow.record("abacus", "poet").stages.build is not None
    assert flow.record("abacus", "poet").stages.weights is None
    assert tags(flow) == [()] * 2


def test_without_fail_fast_the_others_go_on(flow: Flow, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_for_loom(flow, monkeypatch, "build")
    outcomes = go(flow)
    assert ends(outcomes, "attest") == {"abacus/poet": "passed"}
    assert ends(outcomes, "promote") == {"abacus/poet": "not done"}


def test_a_bug_in_one_cell_is_raised_and_nothing_of_the_cut_off_one_is_recorded(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, is_cut, building = flow.table(), threading.Event(), threading.Event()

    def build(going: CellRelease, log: StageLog) -> Ended:
        if going.cell.chip_id == "loom":
            building.wait(timeout=10)
            raise LookupError("a bug")
        building.set()
        is_cut.wait(timeout=10)
        return "failed", table["build"](going, log)[1], "its container is gone"

    monkeypatch.setattr(flow_module, "FLOW", {**table, "build": build})
    monkeypatch.setattr(flow.engine, "remove_own", is_cut.set, raising=False)
    with pytest.raises(LookupError, match="a bug"):
        go(flow)
    assert flow.record("abacus", "poet").stages.build is None
