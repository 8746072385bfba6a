"""One stage of one cell: whether it has to run, and what of it goes into the record."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pipeline.canonical import room_for, write_whole
from pipeline.cell_release import CellRelease, Ended
from pipeline.errors import InconclusiveError, PipelineError, StageRefusedError
from pipeline.keys import Parts, key_of
from pipeline.next_step import next_step
from pipeline.parts import parts_of
from pipeline.plan import Action, act, reused
from pipeline.record import ImageIdentity, StageName, StageRecord, read_record
from pipeline.reporter import StageLog
from pipeline.results import (
    AttestResult,
    BuildResult,
    PromoteResult,
    Publication,
    PublishResult,
    WeightsResult,
)
from pipeline.stages.weights import is_whole
from pipeline.world.hub import held

T = TypeVar("T")
LEAVE_THINGS_OUTSIDE: tuple[StageName, ...] = (
    "build",
    "weights",
    "attest",
    "promote",
    "publish",
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one stage of one cell ended in this run."""

    cell: str
    stage: StageName
    status: str
    seconds: float
    why: str
    error: PipelineError | None = None


def settled(run: CellRelease, stage: StageName, *, forced: bool) -> tuple[Outcome | None, str]:
    """How the stage ended without running; or None, and why it has to run."""
    action = act(stage, run.cell, run.inputs, run.record.stages, run.past, run.release)
    try:
        if withdrawn := _withdrawal(run, action):
            return withdrawn, ""
        gone = _is_gone(run, action)
    except PipelineError as broken:
        return unfinished(run.cell.id, stage, "; ".join(action.reasons), broken), ""
    if action.kind == "reuse" and not forced and not gone:
        _keep(run, stage, reused(action, run.past), action.source)
        why = f"{', '.join(action.reasons)} since {action.source}"
        return Outcome(cell=run.cell.id, stage=stage, status="reused", seconds=0, why=why), ""
    if gone:
        return None, "what it left is gone"
    return None, "asked for again" if forced else "; ".join(action.reasons)


@dataclass(frozen=True, kw_only=True)
class Begun:
    parts: Parts
    started: datetime
    clock: float


def begin(run: CellRelease, stage: StageName, *, forced: bool) -> Begun:
    parts = parts_of(stage, run.cell, run.inputs, run.record.stages, run.release)
    run.key, run.is_forced, run.starts, run.waited_s = key_of(parts), forced, [], 0
    return Begun(parts=parts, started=datetime.now(UTC), clock=time.monotonic())


def tried(work: Callable[[], T], log: StageLog) -> T | PipelineError:
    """What a stage gave, or the error that ended it: the log has it too, for a record may have no word of it."""
    try:
        with room_for("a file of this stage"):
            return work()
    except PipelineError as error:
        with suppress(PipelineError):  # the disk of the log may be what is full
            log.line(f"error: {error}")
        return error


def end(
    run: CellRelease, stage: StageName, why: str, begun: Begun, ended: Ended | PipelineError
) -> Outcome:
    """Into the record, unless the world did not let it end."""
    seconds = round(time.monotonic() - begun.clock - run.waited_s, 2)
    error: PipelineError | None = None
    if isinstance(ended, StageRefusedError):
        status, result, wrong, error = "failed", None, str(ended), ended
    elif isinstance(ended, PipelineError):
        return unfinished(run.cell.id, stage, why, ended, seconds)
    else:
        status, result, wrong = ended
    if wrong and error is None:
        kind = InconclusiveError if status == "inconclusive" else StageRefusedError
        error = kind(wrong, where=f"{stage} of {run.cell.id}", hint=next_step(run.cell, result))
    found = StageRecord[Any](
        key=run.key,
        parts=dict(begun.parts),
        status=status,
        node=run.inputs.node,
        started=begun.started.isoformat(timespec="seconds"),
        seconds=seconds,
        error=wrong,
        result=result,
    )
    _write(run, stage, found)
    return Outcome(
        cell=run.cell.id, stage=stage, status=status, seconds=seconds, why=why, error=error
    )


def unfinished(
    cell: str,
    stage: StageName,
    why: str,
    error: PipelineError | None = None,
    seconds: float = 0,
) -> Outcome:
    return Outcome(cell=cell, stage=stage, status="not done", seconds=seconds, why=why, error=error)


def _withdrawal(run: CellRelease, action: Action) -> Outcome | None:
    """A promoted cell that somebody took back. Its record stays as it was promoted; the tombstone says the rest."""
    if action.kind == "run" or action.stage != "promote":
        return None
    done = reused(action, run.past).result
    if not isinstance(done, PromoteResult):
        return None
    stones = run.shelf.withdrawn_cell(done.tag, run.names.public, done.digest)
    if not stones:
        return None
    error = StageRefusedError(
        stones[0].sentence,
        where=f"promote of {run.cell.id}",
        hint="mend the cause and release under a new name",
    )
    return Outcome(
        cell=run.cell.id,
        stage="promote",
        status="withdrawn",
        seconds=0,
        why=f"{stones[0].event} since",
        error=error,
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
        case AttestResult(attestations=attestations):
            staging = run.world.registry(run.names.staging_host)
            place = run.names.staging_model
            return not all(staging.head(place, one.manifest_digest) for one in attestations)
        case PromoteResult(tag=tag, digest=digest, index=index):
            public = run.names.public
            is_tagged = run.shelf.registry.head(public, tag) == digest
            return not (is_tagged and (index is None or run.shelf.holds(tag, public, digest)))
        case PublishResult(publications=publications):
            return not all(_is_published(run, done) for done in publications)
    return False


def _is_published(run: CellRelease, done: Publication) -> bool:
    """Whether its hub still has it; where the hub tells its newest commit, that is kept."""
    hub = next((hub for hub in run.world.hubs() if hub.name == done.hub), None)
    found = held(hub, run.record.about.hub_name, done) if hub else None
    if found:
        run.heads[done.hub] = found.head
    return found is not None


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
    # Later stages read what is stored: a card made in this run is the one made of its record anywhere.
    run.record = read_record(run.project.store.write(run.record))
