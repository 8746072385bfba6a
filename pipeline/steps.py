"""What every stage of the flow is given, and how its result ends it: one function a stage, in the order of the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.cell import Cell, Names, names
from pipeline.errors import StageRefusedError
from pipeline.gate.operators import operator_faults
from pipeline.layers import Layer
from pipeline.matrix import Target
from pipeline.next_step import next_step
from pipeline.operator_evidence import Look, StackOperators, stack_operators
from pipeline.parts import Inputs
from pipeline.project import Project
from pipeline.record import R, Record, StageName, StageRecord, Status
from pipeline.reporter import Reporter, StageLog
from pipeline.results import BuildResult, Frozen, ItemRow, PublishResult, WeightsResult
from pipeline.rows import stored_rows
from pipeline.serve import accuracy_task, expected_of_smoke, launch, pregate_task
from pipeline.stages.build import Builder, build
from pipeline.stages.build_on_node import NodeBuilder, build_on_node
from pipeline.stages.card import card, card_result
from pipeline.stages.performance import performance
from pipeline.stages.promote import promote
from pipeline.stages.publish import HUB_FILES, publish
from pipeline.stages.render import render_result, write
from pipeline.stages.smoke import smoke
from pipeline.stages.weights import check_whole, fetch
from pipeline.suite import Places, pregate_prompts, prepare_suite
from pipeline.world.engine import Engine
from pipeline.world.evaluator import Endpoint
from pipeline.world.hub import FolderHub
from pipeline.world.operators import look_at_operators
from pipeline.world.registry import Registry
from pipeline.world.sandbox import Sandbox
from pipeline.world.server import Served, serving

Ended = tuple[Status, Frozen, str]  # status, result, and what was wrong


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything outside that a release touches, and the report."""

    engine: Callable[[], Engine]
    registry: Callable[[str], Registry]
    revision: str
    report: Reporter


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
    is_forced: bool = False  # the stage that runs was asked for again: nothing it made is used

    @property
    def names(self) -> Names:
        return names(self.cell, self.target)

    @property
    def folder(self) -> Path:
        return self.project.store.folder(self.release, self.cell.chip_id, self.cell.model_id)

    @property
    def image(self) -> str:
        """The candidate by digest, in staging or in this node's engine."""
        return self.staged("model")

    def staged(self, layer: Layer) -> str:
        image = next(image for image in self.built.images if image.layer == layer)
        return image.reference(self.names.staging_host)

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
    if run.cell.chip.base.node is not None:
        return _build_on_node(run, log)
    builder = Builder(
        engine=run.world.engine(),
        registry=run.world.registry(run.names.staging_host),
        names=run.names,
        revision=run.world.revision,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        log=log,
    )
    return "passed", build(run.cell, run.inputs.lock, run.inputs.files, builder), ""


def _build_on_node(run: CellRelease, log: StageLog) -> Ended:
    builder = NodeBuilder(
        engine=run.world.engine(),
        wheels=run.project.carried / "wheels",
        repositories=run.names,
        revision=run.world.revision,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        log=log,
    )
    return "passed", build_on_node(run.cell, run.inputs.lock, run.inputs.files, builder), ""


def _weights(run: CellRelease, log: StageLog) -> Ended:
    result = fetch(
        run.cell,
        run.inputs.lock,
        key=run.key,
        share=run.project.share,
        engine=run.world.engine,
        image=run.image,
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
    up: dict[str, Served] = {}

    @contextmanager
    def served(stack: str) -> Iterator[Endpoint]:
        with run.serve(stack, log) as server:
            up[stack] = server
            yield Endpoint(base_url=server.base_url, model=run.cell.served_name)

    def look_at(stack: str) -> Look:
        return look_at_operators(
            up[stack].container, run.cell.evidence_folders, wait=stack in task.operators
        )

    def ran_as_asked(stack: str) -> bool:
        seen = stack_operators(task.operators.get(stack), (look_at(stack),))
        return not any(operator_faults({stack: seen}, (stack, stack)))

    # numpy takes a while to import, and most runs reuse their verdict.
    from pipeline.stages.accuracy import measure_accuracy, without_items
    from pipeline.stages.pregate import PreGate, PreGateRefusedError

    suite = prepare_suite(
        run.cell,
        run.inputs,
        Places(share=run.project.share, environments=run.project.environments, folder=run.folder),
        stages=run.record.stages,
        run_programs=Sandbox(engine=run.world.engine(), image=run.image),
        say=log.say,
    )
    task = accuracy_task(run.cell, run.inputs, suite, stages=run.record.stages, folder=run.folder)
    known = None if run.is_forced else judged_before(run, task.asking.rows_key)
    if known:
        log.say(f"the answers of {known.release} are judged again where they are whole")

    def progress(name: str, done: int, of: int) -> None:
        log.progress(f"{name} {done}/{of}")

    pregate = PreGate(
        pregate_task(
            run.cell,
            run.inputs,
            pregate_prompts(run.cell, run.inputs.lock, run.project.share / "download", log.say),
            stages=run.record.stages,
            task=task,
            folder=run.project.traces / run.cell.id,
        ),
        served,
        progress,
        look_at=look_at,
        keeps=ran_as_asked,
        fresh=run.is_forced,
    )
    try:
        result = measure_accuracy(
            task,
            served,
            progress,
            evaluator=suite.evaluator,
            known=known.rows if known else (),
            known_seconds=known.seconds if known else None,
            known_operators=known.operators if known else None,
            on_served=pregate.on_served,
            look_at=look_at,
            least_runs=pregate.least_runs,
        )
        result = result.model_copy(update={"logits": pregate.verdict()})
    except PreGateRefusedError as refused:
        result = without_items(task, refused.verdict, refused.looks)
    logits = (f"pre-gate: {result.logits.sentence}",) if result.logits else ()
    said = (*logits, *result.verdict.warnings, result.verdict.sentence, next_step(run.cell, result))
    for line in filter(None, said):
        log.say(line)
    ended = ENDED[result.verdict.status]
    return ended, result, "" if ended == "passed" else result.verdict.sentence


@dataclass(frozen=True, kw_only=True)
class Known:
    """Rows that the same image, weights and questions gave in an earlier run."""

    release: str
    rows: tuple[ItemRow, ...]
    seconds: Mapping[str, float]  # by stack
    operators: Mapping[str, StackOperators]  # by stack


def judged_before(run: CellRelease, rows_key: str) -> Known | None:
    """Answers of a stack that did not run with its operators are those of another stack, and asked again."""
    stacks = (run.cell.chip.reference, run.cell.chip.released)
    for past in run.past:
        found = past.stages.accuracy and past.stages.accuracy.result
        if found and found.rows_key == rows_key and found.operators is not None:
            if any(operator_faults(found.operators, stacks)):
                continue
            folder = run.project.store.folder(past.release, past.chip, past.model)
            if (folder / found.items_file).exists():
                rows = stored_rows(folder, found)
                return Known(
                    release=past.release,
                    rows=rows,
                    seconds=found.stack_seconds,
                    operators=found.operators,
                )
    return None


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
