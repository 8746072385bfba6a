"""The whole flow of one cell on one screen: every stage is decided, run or reused, and written to the record."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.canonical import write_whole
from pipeline.cell_release import CellRelease
from pipeline.errors import InconclusiveError, PipelineError, StageRefusedError
from pipeline.keys import key_of
from pipeline.next_step import next_step
from pipeline.parts import parts_of
from pipeline.plan import Action, act, reused, stages_until
from pipeline.record import ImageIdentity, StageName, StageRecord
from pipeline.results import BuildResult, PromoteResult, PublishResult, WeightsResult
from pipeline.stages.weights import is_whole
from pipeline.steps import FLOW
from pipeline.world.hub import holds

LEAVE_THINGS_OUTSIDE: tuple[StageName, ...] = ("build", "weights", "promote", "publish")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one stage of one cell ended in this run."""

    cell: str
    stage: StageName
    status: str
    seconds: float
    why: str
    error: PipelineError | None = None


def release_cell(run: CellRelease, until: StageName, again: bool = False) -> list[Outcome]:
    """Run the flow up to a stage. Stops at the first stage that does not pass; the record keeps what was done."""
    outcomes = []
    for stage in stages_until(until):
        outcome = _stage(run, stage, forced=again and stage == until)
        outcomes.append(outcome)
        if outcome.status not in ("passed", "reused", "not_applicable"):
            break
    return outcomes


def _stage(run: CellRelease, stage: StageName, *, forced: bool) -> Outcome:
    action = act(stage, run.cell, run.inputs, run.record.stages, run.past, run.release)
    try:
        gone = _is_gone(run, action)
    except PipelineError as broken:
        return Outcome(
            cell=run.cell.id,
            stage=stage,
            status="not done",
            seconds=0,
            why="; ".join(action.reasons),
            error=broken,
        )
    if action.kind == "reuse" and not forced and not gone:
        _keep(run, stage, reused(action, run.past), action.source)
        return Outcome(
            cell=run.cell.id,
            stage=stage,
            status="reused",
            seconds=0,
            why=f"{', '.join(action.reasons)} since {action.source}",
        )
    why = (
        "what it left is gone"
        if gone
        else "asked for again"
        if forced
        else "; ".join(action.reasons)
    )
    parts = parts_of(stage, run.cell, run.inputs, run.record.stages, run.release)
    run.key, run.is_forced, run.starts = key_of(parts), forced, []
    started, clock = datetime.now(UTC), time.monotonic()
    error: PipelineError | None = None
    try:
        with run.world.report.stage(run.cell.id, stage, run.folder / f"{stage}.log") as log:
            status, result, wrong = FLOW[stage](run, log)
    except StageRefusedError as refused:
        status, result, wrong, error = "failed", None, str(refused), refused
    except PipelineError as broken:
        seconds = time.monotonic() - clock
        return Outcome(
            cell=run.cell.id, stage=stage, status="not done", seconds=seconds, why=why, error=broken
        )
    if wrong and error is None:
        kind = InconclusiveError if status == "inconclusive" else StageRefusedError
        error = kind(wrong, where=f"{stage} of {run.cell.id}", hint=next_step(run.cell, result))
    seconds = round(time.monotonic() - clock, 2)
    _write(
        run,
        stage,
        StageRecord(
            key=run.key,
            parts=dict(parts),
            status=status,
            node=run.inputs.node,
            started=started.isoformat(timespec="seconds"),
            seconds=seconds,
            error=wrong,
            result=result,
        ),
    )
    return Outcome(
        cell=run.cell.id, stage=stage, status=status, seconds=seconds, why=why, error=error
    )


def _is_gone(run: CellRelease, action: Action) -> bool:
    """Whether what a finished stage left in the registry or on disk is no longer there."""
    if action.kind == "run" or action.stage not in LEAVE_THINGS_OUTSIDE:
        return False
    match reused(action, run.past).result:
        case BuildResult(model=model) if model.manifest_digest is None:
            return run.world.engine().image(model.config_digest) is None
        case BuildResult(model=model):
            staging = run.world.registry(run.names.staging_host)
            return staging.head(model.repository, str(model.manifest_digest)) is None
        case WeightsResult() as found:
            return not is_whole(run.project.share, run.cell, found)
        case PromoteResult(tag=tag, digest=digest):
            public = run.world.registry(run.names.host)
            return public.head(run.names.public, tag) != digest
        case PublishResult(publications=publications):
            hubs = {hub.name: hub for hub in run.world.hubs()}
            return not all(
                done.hub in hubs and holds(hubs[done.hub], run.record.about.hub_name, done)
                for done in publications
            )
    return False


def _keep(run: CellRelease, stage: StageName, found: StageRecord[Any], source: str | None) -> None:
    """Take over a finished stage; in another release's record it says where the work was done."""
    if run.record.stages.get(stage) == found:
        return
    if stage == "accuracy" and source and source != run.release:
        _copy_items(run, source)
    kept = found.model_copy(update={"reused_from": found.reused_from or source})
    _write(run, stage, kept if source != run.release else found)


def _copy_items(run: CellRelease, source: str) -> None:
    """A reused verdict keeps its rows beside it."""
    items = run.project.store.folder(source, run.cell.chip_id, run.cell.model_id) / "items.jsonl"
    if items.exists():
        write_whole(run.folder / items.name, items.read_bytes())


def _write(run: CellRelease, stage: StageName, found: StageRecord[Any]) -> None:
    run.record = run.record.with_stage(stage, found)
    if stage == "build" and found.result:
        run.record = run.record.model_copy(update={"image": ImageIdentity.of(found.result)})
    run.project.store.write(run.record)
