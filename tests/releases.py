"""A cell on its way through the flow, over fakes: the real flow, with stages that end as a test tells them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from pipeline.canonical import canonical, sha256_bytes
from pipeline.cell_release import CellRelease, Ended, World
from pipeline.project import Project
from pipeline.record import STAGES, Record, StageName
from pipeline.rehearsal import RehearseResult
from pipeline.release import release_cells
from pipeline.reporter import Reporter, StageLog
from pipeline.resources import Resources
from pipeline.results import BuildResult, CardResult, Frozen, PromoteResult, PublishResult
from pipeline.stage_run import Outcome
from pipeline.stages.card import card_result
from pipeline.statements import sealed_sha256
from pipeline.steps import FLOW
from pipeline.world.hubs import hubs_of
from tests.fakes import FakeEngine
from tests.fakes_registry import FakeRegistry, push_image
from tests.projects import one_cell
from tests.record_parts import attest_result, build_of, digest, file, passed
from tests.records import cpu_record

RELEASE = "2026.11.24.1"
NODE = "Test Processor x2"
TOLD: tuple[StageName, ...] = (
    *("build", "weights", "smoke", "accuracy", "performance", "rehearse", "card", "attest"),
)  # render, promote and publish are always the real ones


def finished() -> Record:
    """A record whose every stage has passed; keys and parts are not yet those of a project."""
    promoted = PromoteResult(
        reference="r", tag=RELEASE, digest="d", copied_bytes=0, mounted_blobs=0
    )
    card = CardResult(
        files=(file("card.en.md", 10), file("card.zh.md", 10), file("differences.svg", 10))
    )
    rehearsed = RehearseResult(blocks_sha256="0" * 64, blocks=())
    record = cpu_record().with_stage("rehearse", passed(rehearsed))
    record = record.with_stage("card", passed(card))
    record = record.with_stage("attest", passed(attest_result(digest("cpu model manifest"))))
    record = record.with_stage("promote", passed(promoted))
    return record.with_stage("publish", passed(PublishResult(publications=())))


def told_blocks(record: Record) -> str | None:
    """Stands in for the commands of a card, which follow what was built, asked for and measured."""
    stages = record.stages
    needed = (stages.build, stages.weights, stages.smoke, stages.accuracy, stages.performance)
    if not all(needed):
        return None
    known = [found.result for found in (stages.build, stages.smoke) if found]
    return sha256_bytes(
        canonical([one.model_dump(mode="json") for one in (*known, record.about) if one])
    )


def cards_of(release: str) -> dict[str, bytes]:
    return {
        "card.en.md": f"# Poet {release}".encode(),
        "card.zh.md": f"# 诗人 {release}".encode(),
        "differences.svg": b"<svg/>",
    }


class Flow:
    """Releases of toy cells. A stage named in `ends` ends that way, by a result or by an error; others pass."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.registry = FakeRegistry("registry.test")
        self.engine = FakeEngine(registry=self.registry)
        self.output = io.StringIO()
        self.resources = Resources()
        self.ends: dict[StageName, Ended | BaseException] = {}
        self.ran: list[str] = []
        self.on_disk: list[tuple[StageName, ...]] = []  # finished stages at the start of each

    def table(self) -> dict[StageName, Callable[[CellRelease, StageLog], Ended]]:
        """What stands in for `pipeline.steps.FLOW`."""
        return {
            stage: partial(self._run, stage, FLOW[stage] if stage not in TOLD else None)
            for stage in FLOW
        }

    def cell(self, *patterns: str, release: str = RELEASE) -> CellRelease:
        cell = one_cell(self.project, *patterns)
        target = self.project.matrix.targets["local"]
        inputs = self.project.inputs(cell, target, builder=self.engine.builder, node=NODE)
        inputs = replace(inputs, blocks=told_blocks)
        past = self.project.store.of_cell(cell.chip_id, cell.model_id)
        fresh = Record(
            cell=cell.id,
            chip=cell.chip_id,
            model=cell.model_id,
            release=release,
            about=inputs.about,
        )
        return CellRelease(
            cell=cell,
            inputs=inputs,
            target=target,
            project=self.project,
            world=self.world,
            release=release,
            past=past,
            record=next((record for record in past if record.release == release), fresh),
        )

    @property
    def world(self) -> World:
        return World(
            engine=lambda: self.engine,
            registry=lambda _: self.registry,
            hubs=lambda: hubs_of(self.project.target("local").hubs, self.project.root),
            revision="abc",
            report=Reporter(Console(file=self.output, width=200)),
            resources=self.resources,
        )

    def go(
        self,
        *patterns: str,
        until: StageName = "publish",
        release: str = RELEASE,
        again: bool = False,
        since: StageName = STAGES[0],
        node: str = NODE,
    ) -> list[Outcome]:
        self.ran.clear()
        self.on_disk.clear()
        run = self.cell(*patterns, release=release)
        run.inputs = replace(run.inputs, node=node)
        return release_cells([run], until, since=since, again=again, allow_partial=False)

    def record(self, chip: str, model: str, release: str = RELEASE) -> Record:
        found = self.project.store.read(release, chip, model)
        if found is None:
            raise LookupError(f"no record of {chip}/{model} in {release}")
        return found

    def _run(
        self,
        stage: StageName,
        real: Callable[[CellRelease, StageLog], Ended] | None,
        run: CellRelease,
        log: StageLog,
    ) -> Ended:
        self.ran.append(stage)
        written = self.project.store.read(run.release, run.cell.chip_id, run.cell.model_id)
        self.on_disk.append(
            tuple(name for name in STAGES if written is not None and written.stages.get(name))
        )
        log.line(f"running {stage}")
        told = self.ends.get(stage)
        if isinstance(told, BaseException):
            raise told
        return told or (real(run, log) if real else ("passed", self._result(stage, run), ""))

    def _result(self, stage: StageName, run: CellRelease) -> Frozen:
        if stage == "build":
            return self._built(run)
        if stage == "attest":
            sealed = {"record_sha256": sealed_sha256(run.record)}
            return attest_result(str(run.built.model.manifest_digest)).model_copy(update=sealed)
        if stage == "card":
            cards = cards_of(run.release)
            for name, content in cards.items():
                (run.folder / name).write_bytes(content)
            return card_result(cards)
        found = finished().stages.get(stage)
        result = found.result if found else None
        if not isinstance(result, Frozen):
            raise LookupError(stage)
        return result

    def _built(self, run: CellRelease) -> BuildResult:
        """A build whose model image the registry holds."""
        built = build_of(run.cell.chip_id, run.cell.model_id)
        repository = run.names.staging_model
        digest = push_image(self.registry, repository, b"layer of " + run.cell.id.encode())
        *parents, model = built.images
        model = model.model_copy(update={"repository": repository, "manifest_digest": digest})
        return built.model_copy(
            update={"images": (*parents, model), "builder": self.engine.builder}
        )


def statuses(outcomes: list[Outcome]) -> dict[StageName, str]:
    return {outcome.stage: outcome.status for outcome in outcomes}


def read_log(flow_: Flow, chip: str, model: str, stage: StageName) -> str:
    folder: Path = flow_.project.store.folder(RELEASE, chip, model)
    return (folder / f"{stage}.log").read_text("utf-8")
