"""The whole flow of one cell on one screen: every stage is decided, run or reused, and written to the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.cell import Cell, Names, names
from pipeline.errors import InconclusiveError, PipelineError, StageRefusedError
from pipeline.keys import key_of
from pipeline.matrix import Target
from pipeline.parts import Inputs, parts_of
from pipeline.plan import Action, act, reused, stages_until
from pipeline.project import Project
from pipeline.record import (
    BuildResult,
    Frozen,
    ImageIdentity,
    PromoteResult,
    PublishResult,
    R,
    Record,
    StageName,
    StageRecord,
    Status,
    WeightsResult,
    write_whole,
)
from pipeline.reporter import Reporter, StageLog
from pipeline.serve import accuracy_task, expected_of_smoke, launch
from pipeline.stages.build import Builder, Layer, build
from pipeline.stages.card import card, card_result
from pipeline.stages.performance import performance
from pipeline.stages.promote import promote
from pipeline.stages.publish import HUB_FILES, publish
from pipeline.stages.render import render_result, write
from pipeline.stages.smoke import smoke
from pipeline.stages.weights import check_whole, fetch, is_whole
from pipeline.world.engine import Engine
from pipeline.world.evaluator import Endpoint
from pipeline.world.hub import FolderHub
from pipeline.world.registry import Registry
from pipeline.world.server import Served, serving

Ended = tuple[Status, Frozen, str]  # status, result, and what was wrong


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything outside that a release touches, and the report."""

    engine: Callable[[], Engine]
    registry: Callable[[str], Registry]
    revision: str
    report: Reporter


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one stage of one cell ended in this run."""

    cell: str
    stage: StageName
    status: str
    seconds: float
    why: str
    error: PipelineError | None = None


@dataclass(kw_only=True)
class CellRelease:
    """One cell on its way through the flow."""

    cell: Cell
    inputs: Inputs
    target: Target
    project: Project
    world: World
    release: str
    past: tuple[Record, ...]
    record: Record
    key: str = ""

    @property
    def names(self) -> Names:
        return names(self.cell, self.target)

    @property
    def folder(self) -> Path:
        return self.project.store.folder(self.release, self.cell.chip_id, self.cell.model_id)

    @property
    def image(self) -> str:
        """The candidate by digest, in staging."""
        return self.staged("model")

    def staged(self, layer: Layer) -> str:
        image = next(image for image in self.built.images if image.layer == layer)
        return f"{self.names.staging_host}/{image.repository}@{image.manifest_digest}"

    @property
    def built(self) -> BuildResult:
        return _finished("build", self.record.stages.build)

    @property
    def weights(self) -> WeightsResult:
        return _finished("weights", self.record.stages.weights)

    @contextmanager
    def serve(self, stack: str, log: StageLog) -> Iterator[Served]:
        check_whole(self.project.share, self.cell, self.weights)
        started = launch(self.cell, stack, self.image, self.project.share)
        with serving(self.world.engine(), started, log.progress) as served:
            log.say(f"{stack} is ready after {served.ready_seconds:.0f} s")
            yield served


def _finished(stage: StageName, found: StageRecord[R] | None) -> R:
    """The result of a stage that the flow has already passed."""
    if found is None or found.result is None:
        raise LookupError(f"{stage} has no result, although a later stage runs")
    return found.result


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
    run.key = key_of(parts)
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
        error = kind(wrong, where=f"{stage} of {run.cell.id}")
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
    if action.kind == "run" or action.stage not in ("build", "weights", "promote"):
        return False
    match reused(action, run.past).result:
        case BuildResult(model=model):
            staging = run.world.registry(run.names.staging_host)
            return staging.head(model.repository, model.manifest_digest) is None
        case WeightsResult() as found:
            return not is_whole(run.project.share, run.cell, found)
        case PromoteResult(tag=tag, digest=digest):
            public = run.world.registry(run.names.host)
            return public.head(run.names.public, tag) != digest
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
        run.record = run.record.model_copy(update={"image": _identity(found.result)})
    run.project.store.write(run.record)


def _identity(result: BuildResult) -> ImageIdentity:
    return ImageIdentity(
        config_digest=result.model.config_digest,
        manifest_digest=result.model.manifest_digest,
        base=result.images[0].manifest_digest,
        published=True,
    )


def _render(run: CellRelease, log: StageLog) -> Ended:
    rendered = {
        p: c
        for p, c in run.inputs.files.items()
        if p.startswith("images/")
        and not p.startswith("images/serving/")
        and not p.endswith(".lock")
    }
    for path in write(run.project.root, rendered, whole_matrix=False):
        log.say(f"wrote {path}")
    run.inputs = replace(run.inputs, edited=())
    return "passed", render_result(rendered), ""


def _build(run: CellRelease, log: StageLog) -> Ended:
    builder = Builder(
        engine=run.world.engine(),
        registry=run.world.registry(run.names.staging_host),
        names=run.names,
        revision=run.world.revision,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        log=log,
    )
    result = build(run.cell, run.inputs.lock, run.inputs.files, builder)
    return "passed", result, ""


def _weights(run: CellRelease, log: StageLog) -> Ended:
    result = fetch(
        run.cell,
        run.inputs.lock,
        key=run.key,
        share=run.project.share,
        engine=run.world.engine,
        runtime_image=run.staged("runtime"),
        say=log.say,
    )
    return "passed", result, ""


def _smoke(run: CellRelease, log: StageLog) -> Ended:
    cell = run.cell
    check_whole(run.project.share, cell, run.weights)
    started = launch(cell, cell.chip.released, run.image, run.project.share)
    result = smoke(
        cell, started, run.world.engine(), expected_of_smoke(cell, run.inputs), log.progress
    )
    failed = [check for check in result.checks if not check.passed]
    for check in result.checks:
        log.say(
            f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.seen} ({check.seconds:.1f} s)"
        )
    log.line(result.server_log)
    if not failed:
        return "passed", result, ""
    wrong = "; ".join(f"{check.name}: {check.seen}" for check in failed)
    return "failed", result, f"{wrong}\nfrom the server's log:\n{result.server_log}"


ENDED: Mapping[str, Status] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "inconclusive",
    "invalid": "invalid",
}


def _accuracy(run: CellRelease, log: StageLog) -> Ended:
    @contextmanager
    def served(stack: str) -> Iterator[Endpoint]:
        with run.serve(stack, log) as server:
            yield Endpoint(base_url=server.base_url, model=run.cell.served_name)

    # scipy takes over a second to import, and most runs reuse their verdict.
    from pipeline.stages.accuracy import measure_accuracy

    task = accuracy_task(
        run.cell,
        run.inputs,
        key=run.key,
        folder=run.folder,
        downloads=run.project.share / "download",
        say=log.say,
    )
    result = measure_accuracy(
        task, served, lambda name, done, of: log.progress(f"{name} {done}/{of}")
    )
    log.say(result.verdict.sentence)
    ended = ENDED[result.verdict.status]
    return ended, result, "" if ended == "passed" else result.verdict.sentence


def _performance(run: CellRelease, log: StageLog) -> Ended:
    def served(stack: str) -> AbstractContextManager[Served]:
        return run.serve(stack, log)

    result = performance(run.cell, run.cell.stacks, served, log.progress)
    log.say(f"{result.label}: lowest ratio {result.lowest_ratio:.2f}, floor {result.label_floor:g}")
    return "passed", result, ""


def _card(run: CellRelease, log: StageLog) -> Ended:
    files = card(run.record, run.project.templates)
    for name, content in files.items():
        write_whole(run.folder / name, content)
        log.say(f"wrote {(run.folder / name).relative_to(run.project.root)}")
    return "passed", card_result(files), ""


def _promote(run: CellRelease, log: StageLog) -> Ended:
    names = run.names
    result = promote(
        run.record,
        source=run.world.registry(names.staging_host),
        target=run.world.registry(names.host),
        source_repository=names.staging_model,
        target_repository=names.public,
        tag=run.release,
    )
    log.say(f"{result.reference} is tagged {result.tag}")
    return "passed", result, ""


def _publish(run: CellRelease, log: StageLog) -> Ended:
    if missing := [name for name in HUB_FILES if not (run.folder / name).exists()]:
        raise StageRefusedError(
            f"{', '.join(missing)} is no longer there",
            where=str(run.folder),
            hint=f"run nox -s card -- {run.cell.chip_id} {run.cell.model_id} --again",
        )
    cards = {name: (run.folder / name).read_bytes() for name in HUB_FILES}
    hubs = [FolderHub(run.project.root / hub.folder) for hub in run.target.hubs]
    if not hubs:
        return "not_applicable", PublishResult(publications=()), ""
    result = publish(run.record, cards, hubs, run.record.about.hub_name)
    for done in result.publications:
        log.say(f"{done.location} {'written' if done.changed else 'is the same already'}")
    return "passed", result, ""


FLOW: Mapping[StageName, Callable[[CellRelease, StageLog], Ended]] = {
    "render": _render,
    "build": _build,
    "weights": _weights,
    "smoke": _smoke,
    "accuracy": _accuracy,
    "performance": _performance,
    "card": _card,
    "promote": _promote,
    "publish": _publish,
}
