"""The whole flow on one screen: every stage is decided, run or reused, and written to the record.

Cells go their way side by side up to their cards, each in a thread. What they share of this host they take in turns
(`pipeline/resources.py`). Then all of them are promoted, or none; then each publishes its card.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from pipeline.cell_release import CellRelease, Ended, World
from pipeline.errors import PipelineError, StageRefusedError
from pipeline.plan import stages_until
from pipeline.promote_step import promote_cells
from pipeline.record import STAGES, StageName
from pipeline.results import PromoteResult
from pipeline.stage_run import Outcome, begin, end, settled, tried, unfinished
from pipeline.steps import FLOW, TAKES
from pipeline.waiver import Waiver
from pipeline.workers import side_by_side
from pipeline.world.command import end_running
from pipeline.world.untidy import is_untidy

GOOD = ("passed", "reused", "not_applicable")
ALONE = STAGES.index("promote")  # so many stages go cell by cell before it


@dataclass(frozen=True, kw_only=True)
class Going:
    """How cells go, and what has stopped any of them so far: appended by all threads."""

    forced: StageName | None = None  # the stage that is asked for again
    fail_fast: bool = False
    stops: list[Outcome] = field(default_factory=list)

    @property
    def why_not(self) -> str:
        """Why nothing may begin any more; empty while it may."""
        if not self.fail_fast or not self.stops:
            return ""
        first = self.stops[0]
        return f"--fail-fast: {first.stage} of {first.cell} ended {first.status}"


def release_cells(
    runs: Sequence[CellRelease],
    until: StageName,
    *,
    since: StageName = STAGES[0],
    again: bool,
    allow_partial: bool,
    absent: Mapping[str, str] = MappingProxyType({}),
    fail_fast: bool = False,
) -> list[Outcome]:
    """Run the flow up to a stage. A cell stops at its first stage that does not pass; its record keeps the others.

    The other cells go on, unless the first failure is to end the run: then what runs is finished, and nothing begins.
    Stages before `since` are what the record says of them: it may have come from another machine. `absent`: cells that
    were selected and have no record, and why.
    """
    stages = stages_until(until)
    going = Going(forced=until if again else None, fail_fast=fail_fast)
    stuck = {run.cell.id: done for run in runs if (done := _stuck(run, since, allow_partial))}
    going.stops.extend(stuck.values())
    able = [run for run in runs if run.cell.id not in stuck]
    outcomes = [*stuck.values(), *_all(able, stages[STAGES.index(since) : ALONE], going)]
    if "promote" in stages:
        stopped = {done.cell: done for done in outcomes if not _goes_on(runs, done)}
        ready = [run for run in runs if run.cell.id not in stopped]
        left_out = {cell: f"{done.stage}: {done.status}" for cell, done in stopped.items()}
        left_out |= absent
        if going.why_not:
            return outcomes + [unfinished(run.cell.id, "promote", going.why_not) for run in ready]
        promoted = _promote(
            ready, left_out, forced=going.forced == "promote", partial=allow_partial
        )
        public = {done.cell for done in promoted if done.status in GOOD}
        outcomes += promoted
        outcomes += _all(
            [run for run in ready if run.cell.id in public], stages[ALONE + 1 :], going
        )
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


def _all(runs: Sequence[CellRelease], stages: Sequence[StageName], going: Going) -> list[Outcome]:
    """These stages of all cells, side by side; outcomes by cell, in the order of the cells."""
    if not runs or not stages:
        return []
    cut = partial(_cut_off, runs[0].world)
    outcomes = side_by_side([partial(_go, run, stages, going) for run in runs], cut)
    return [outcome for of_cell in outcomes for outcome in of_cell]


def _cut_off(world: World) -> bool:
    """Whatever threads wait for ends now: their turn, their programs, their containers. Nothing of it is recorded.

    Whether any of it was there, or is not tidied yet.
    """
    world.resources.stop()
    found = end_running()
    with suppress(PipelineError):  # what the engine cannot remove now, the next run removes
        found |= bool(world.engine().remove_own())
    return found or is_untidy()


def _go(run: CellRelease, stages: Sequence[StageName], going: Going) -> list[Outcome]:
    outcomes = []
    for stage in stages:
        outcome = _stage(run, stage, going)
        if stage == "accuracy" and outcome.error and (waiver := _waiver(run)):
            outcome = replace(
                outcome, why=f"{waiver.sentence}; {outcome.error.message}", error=None
            )
        outcomes.append(outcome)
        if not _goes_on([run], outcome):
            going.stops.append(outcome)
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
            ),
            log,
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


def _stage(run: CellRelease, stage: StageName, going: Going) -> Outcome:
    if going.why_not:
        return unfinished(run.cell.id, stage, going.why_not)
    forced = stage == going.forced
    outcome, why = settled(run, stage, forced=forced)
    if outcome:
        return outcome
    report, resources = run.world.report, run.world.resources
    takes = TAKES[stage](run.cell) if stage in TAKES else ()
    with report.waiting(run.cell.id, stage) as waiting, resources.held(*takes, waiting=waiting):
        if going.why_not:
            return unfinished(run.cell.id, stage, going.why_not)
        begun = begin(run, stage, forced=forced)
        with report.stage(run.cell.id, stage, run.folder / f"{stage}.log") as log:
            ended = tried(lambda: FLOW[stage](run, log), log)
        resources.refuse_stopped()
        return end(run, stage, why, begun, ended)
