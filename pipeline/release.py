"""The whole flow on one screen: every stage is decided, run or reused, and written to the record.

A cell goes its way alone up to its card. Then all of them are promoted, or none; then each publishes its card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

from pipeline.cell_release import CellRelease, Ended
from pipeline.errors import PipelineError, StageRefusedError
from pipeline.plan import stages_until
from pipeline.promote_step import promote_cells
from pipeline.record import STAGES, StageName
from pipeline.results import PromoteResult
from pipeline.stage_run import Outcome, begin, end, settled, tried, unfinished
from pipeline.steps import FLOW
from pipeline.waiver import Waiver

GOOD = ("passed", "reused", "not_applicable")
ALONE = STAGES.index("promote")  # so many stages go cell by cell before it


def release_cells(
    runs: Sequence[CellRelease],
    until: StageName,
    *,
    since: StageName = STAGES[0],
    again: bool,
    allow_partial: bool,
    absent: Mapping[str, str] = MappingProxyType({}),
) -> list[Outcome]:
    """Run the flow up to a stage. A cell stops at its first stage that does not pass; its record keeps the others.

    Stages before `since` are what the record says of them: it may have come from another machine. `absent`: cells that
    were selected and have no record, and why.
    """
    stages = stages_until(until)
    forced = until if again else None
    alone = stages[STAGES.index(since) : ALONE]
    stuck = {run.cell.id: done for run in runs if (done := _stuck(run, since, allow_partial))}
    going = [run for run in runs if run.cell.id not in stuck]
    outcomes = [*stuck.values(), *(done for run in going for done in _go(run, alone, forced))]
    if "promote" in stages:
        stopped = {done.cell: done for done in outcomes if not _goes_on(runs, done)}
        ready = [run for run in runs if run.cell.id not in stopped]
        left_out = {cell: f"{done.stage}: {done.status}" for cell, done in stopped.items()}
        left_out |= absent
        promoted = _promote(ready, left_out, forced=forced == "promote", partial=allow_partial)
        outcomes += promoted
        public = {done.cell for done in promoted if done.status in GOOD}
        for run in ready:
            if run.cell.id in public:
                outcomes += _go(run, stages[ALONE + 1 :], forced)
    return outcomes


def _stuck(run: CellRelease, since: StageName, allow_partial: bool) -> Outcome | None:
    """The first stage before `since` that its record does not have as passed; None: all are."""
    for stage in STAGES[: STAGES.index(since)]:
        found = run.record.stages.get(stage)
        status = found.status if found else "not_run"
        if status in GOOD or (stage == "accuracy" and _waiver(run)):
            continue
        error = StageRefusedError(
            f"{stage}: {status}, as its record says",
            where=f"{run.cell.id} of release {run.release}",
            hint=f"nox -s release -- {run.cell.id} --release {run.release} where its image is, or --allow-partial",
        )
        why = "as its record says"
        return Outcome(
            cell=run.cell.id,
            stage=stage,
            status=status,
            seconds=0,
            why=why,
            error=None if allow_partial else error,
        )
    return None


def _go(run: CellRelease, stages: Sequence[StageName], forced: StageName | None) -> list[Outcome]:
    outcomes = []
    for stage in stages:
        outcome = _stage(run, stage, forced=stage == forced)
        if stage == "accuracy" and outcome.error and (waiver := _waiver(run)):
            outcome = replace(
                outcome, why=f"{waiver.sentence}; {outcome.error.message}", error=None
            )
        outcomes.append(outcome)
        if not _goes_on([run], outcome):
            break
    return outcomes


def _goes_on(runs: Sequence[CellRelease], done: Outcome) -> bool:
    """After a stage that passed, or after an accuracy that somebody waives."""
    return done.status in GOOD or (
        done.stage == "accuracy" and any(run.cell.id == done.cell and _waiver(run) for run in runs)
    )


def _waiver(run: CellRelease) -> Waiver | None:
    """The one that stands in for its accuracy today."""
    waiver = run.record.waiver
    return waiver if waiver and waiver.stands_on(datetime.now(UTC).date()) else None


def _promote(
    runs: Sequence[CellRelease], left_out: Mapping[str, str], *, forced: bool, partial: bool
) -> list[Outcome]:
    """All of these cells or none, in one step; those that were promoted before stay as they are."""
    over, due = list[Outcome](), dict[str, tuple[CellRelease, str]]()
    for run in runs:
        outcome, why = settled(run, "promote", forced=forced)
        if outcome:
            over.append(outcome)
        else:
            due[run.cell.id] = (run, why)
    broken = {done.cell: f"promote: {done.status}" for done in over if done.status not in GOOD}
    left_out = {**left_out, **broken}
    if not due:
        return over
    if left_out and not partial:
        waits = ", ".join(f"{cell} ({what})" for cell, what in left_out.items())
        why = f"waits for {waits}; --allow-partial promotes without"
        return [*over, *(unfinished(cell, "promote", why) for cell in due)]
    first, _ = next(iter(due.values()))
    begun = {cell: begin(run, "promote", forced=forced) for cell, (run, _) in due.items()}
    path = first.project.store.root / first.release / "promote.log"
    with first.world.report.stage(f"release {first.release}", "promote", path) as log:
        results = tried(
            lambda: promote_cells(
                [run for run, _ in due.values()], left_out, log, allow_partial=partial
            )
        )
    for cell, (run, why) in due.items():
        ended = results if isinstance(results, PipelineError) else _ended(results, cell)
        over.append(end(run, "promote", why, begun[cell], ended))
    return over


def _ended(results: Mapping[str, PromoteResult], cell: str) -> Ended | PipelineError:
    if cell in results:
        return "passed", results[cell], ""
    reasons = [line for result in results.values() for line in result.left_out]
    mine = dict.fromkeys(line for line in reasons if line.startswith(f"{cell}: "))
    return StageRefusedError("left out of the release", where=cell, details="\n".join(mine))


def _stage(run: CellRelease, stage: StageName, *, forced: bool) -> Outcome:
    outcome, why = settled(run, stage, forced=forced)
    if outcome:
        return outcome
    begun = begin(run, stage, forced=forced)
    with run.world.report.stage(run.cell.id, stage, run.folder / f"{stage}.log") as log:
        ended = tried(lambda: FLOW[stage](run, log))
    return end(run, stage, why, begun, ended)
