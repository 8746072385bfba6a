"""How the result of every stage ends it: one function a stage, in the order of the flow.

Not of promote, which takes all cells at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from pipeline.accuracy_result import AccuracyResult
from pipeline.accuracy_step import accuracy
from pipeline.canonical import write_whole
from pipeline.cell import Cell
from pipeline.cell_release import CellRelease, Ended
from pipeline.errors import StageRefusedError
from pipeline.limits import BUILD, PUSH, chip_resource
from pipeline.operators_step import with_operators, wrong_operators
from pipeline.record import StageName
from pipeline.rehearse_step import rehearse_commands
from pipeline.reporter import StageLog
from pipeline.results import PublishResult, Start
from pipeline.serve import expected_of_smoke
from pipeline.stages.build import build
from pipeline.stages.build_on_node import NodeBuilder, build_on_node
from pipeline.stages.card import card, card_result
from pipeline.stages.performance import Kept, performance
from pipeline.stages.publish import HUB_FILES, describe, publish, weight_files
from pipeline.stages.render import render_result, write
from pipeline.stages.smoke import smoke
from pipeline.stages.weights import check_whole, fetch, weights_folder
from pipeline.staging import Builder
from pipeline.world.hub import HubFile
from pipeline.world.server import Served


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
        taking=partial(run.taking, log=log),
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
    with run.taking(BUILD, log):
        result = build_on_node(run.cell, run.inputs.lock, run.inputs.files, builder)
    return "passed", result, ""


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
    shutil.rmtree(
        run.kernels(cell.chip.released), ignore_errors=True
    )  # a first start, as a reader's
    result = smoke(
        cell,
        run.launch(cell.chip.released),
        run.world.engine(),
        expected_of_smoke(cell, run.inputs),
        log.progress,
    )
    result = with_operators(run, result, log)
    failed = [check for check in result.checks if not check.passed]
    for check in result.checks:
        log.say(
            f"{'ok  ' if check.passed else 'FAIL'} {check.name}: {check.seen} ({check.seconds:.1f} s)"
        )
    log.line(result.server_log)
    if not failed:
        return "passed", result, ""
    wrong = "; ".join(f"{check.name}: {check.seen}" for check in failed)
    logged = ("from the server's log:", result.server_log) if result.server_log else ()
    lines = (wrong, *result.wrong_operators, *logged)
    return "failed", result, "\n".join(lines)


def _accuracy(run: CellRelease, log: StageLog) -> Ended:
    ended, result, wrong = accuracy(run, log)
    logits = result.logits if isinstance(result, AccuracyResult) else None
    if logits and logits.status == "fail":
        wrong = "\n".join((wrong, *wrong_operators(run, log)))
    return ended, result, wrong


def _performance(run: CellRelease, log: StageLog) -> Ended:
    @contextmanager
    def serve(stack: str) -> Iterator[tuple[Served, Start]]:
        with run.serve(stack, log) as served:
            yield served, run.starts[-1]

    kept = Kept(run.folder, run.key)
    if run.is_forced:
        kept.forget()
    result = performance(run.cell, run.cell.stacks, serve, kept, log.progress)
    log.say(f"{result.label}: lowest ratio {result.lowest_ratio:.2f}, floor {result.label_floor:g}")
    return "passed", result, ""


def _card(run: CellRelease, log: StageLog) -> Ended:
    files = card(run.record, run.project.templates)
    for name, content in files.items():
        write_whole(run.folder / name, content)
        log.say(f"wrote {(run.folder / name).relative_to(run.project.root)}")
    return "passed", card_result(files), ""


def _attest(run: CellRelease, log: StageLog) -> Ended:
    from pipeline.attest_step import attest_image  # cryptography is loaded by who needs it

    return attest_image(run, log)


def _publish(run: CellRelease, log: StageLog) -> Ended:
    written = run.record.stages.card
    names = [file.path for file in written.result.files] if written and written.result else []
    if missing := [name for name in names or HUB_FILES if not (run.folder / name).exists()]:
        raise StageRefusedError(
            f"{', '.join(missing)} is no longer there",
            where=str(run.folder),
            hint=f"run nox -s card -- {run.cell.chip_id} {run.cell.model_id}",
        )
    cards = {name: (run.folder / name).read_bytes() for name in names}
    hubs = run.world.hubs()
    registry = run.world.registry(run.names.host)
    if not hubs:
        describe(registry, run.names.public_repositories, cards, (), log.say)
        return "not_applicable", PublishResult(publications=()), ""
    weights = _weights_to_publish(run) if any(hub.takes_weights for hub in hubs) else {}
    result = publish(run.record, cards, hubs, run.record.about.hub_name, weights)
    for done in result.publications:
        log.say(f"{done.location} {'written' if done.changed else 'is the same already'}")
    describe(registry, run.names.public_repositories, cards, result.publications, log.say)
    return "passed", result, ""


def _weights_to_publish(run: CellRelease) -> dict[str, HubFile]:
    check_whole(run.project.share, run.cell, run.weights)
    return weight_files(run.weights, weights_folder(run.project.share, run.cell))


FLOW: Mapping[StageName, Callable[[CellRelease, StageLog], Ended]] = {
    "render": _render,
    "build": _build,
    "weights": _weights,
    "smoke": _smoke,
    "accuracy": _accuracy,
    "performance": _performance,
    "rehearse": rehearse_commands,
    "card": _card,
    "attest": _attest,
    "publish": _publish,
}


def _weights_folder(cell: Cell) -> tuple[str, ...]:
    return (f"weights of {cell.model_id}",)


def _server(cell: Cell) -> tuple[str, ...]:
    return chip_resource(cell.chip_id, cell.chip), f"port {cell.model.port}"


def _uploads(_cell: Cell) -> tuple[str, ...]:
    return (PUSH,)


# What of this host a stage has for itself while it runs; `pipeline/limits.py` says how much there is of it.
# A build takes its turn for each image (`stages/build.py`): for building it, then for pushing it.
TAKES: Mapping[StageName, Callable[[Cell], tuple[str, ...]]] = {
    "weights": _weights_folder,
    "smoke": _server,
    "accuracy": _server,
    "performance": _server,
    "rehearse": _server,
    "attest": _uploads,
    "publish": _uploads,
}
