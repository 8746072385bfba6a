"""One cell on its way through the flow: what every stage of it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.cell import Cell
from pipeline.matrix import Target
from pipeline.names import Layer, Names, index_repository, names
from pipeline.parts import Inputs
from pipeline.project import Project
from pipeline.record import R, Record, StageName, StageRecord, Status
from pipeline.reporter import Reporter, StageLog
from pipeline.resources import Resources
from pipeline.results import BuildResult, Frozen, Start, WeightsResult
from pipeline.serve import launch
from pipeline.stages.weights import check_whole
from pipeline.world.engine import Engine
from pipeline.world.first_minutes import first_minutes
from pipeline.world.hub import Hub
from pipeline.world.registry import Registry
from pipeline.world.server import Launch, Served, serving
from pipeline.world.shelf import Shelf

Ended = tuple[Status, Frozen, str]  # status, result, and what was wrong


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything outside that a release touches, and the report. Cells share it; a client is its thread's own."""

    engine: Callable[[], Engine]
    registry: Callable[[str], Registry]
    hubs: Callable[[], tuple[Hub, ...]]
    revision: str
    report: Reporter
    resources: Resources


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
    starts: list[Start] = field(default_factory=list)  # of stacks, by the stage that runs
    heads: dict[str, str] = field(default_factory=dict)  # by hub, the commit that holds its card
    waited_s: float = 0  # for what other cells had, in the stage that runs

    @property
    def names(self) -> Names:
        return names(self.cell, self.target)

    @property
    def shelf(self) -> Shelf:
        """Where the target's releases go."""
        return Shelf(
            registry=self.world.registry(self.names.host),
            index_repository=index_repository(self.target),
            journals=self.project.journals,
        )

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
    def taking(self, resource: str, log: StageLog) -> Iterator[float]:
        """A resource for a part of the stage; the seconds that were waited for it."""
        with self.world.resources.held(resource, waiting=log.progress) as waited_s:
            self.waited_s += waited_s
            yield waited_s

    @contextmanager
    def serve(self, stack: str, log: StageLog) -> Iterator[Served]:
        """Ready, and it has answered once; how long that took is in `starts`."""
        check_whole(self.project.share, self.cell, self.weights)
        is_warm = any(self.kernels(stack).glob("*/*"))
        with serving(self.world.engine(), self.launch(stack), log.progress) as served:
            start = first_minutes(
                stack,
                served,
                self.cell.served_name,
                self.cell.model.smoke,
                "kept" if is_warm else "none",
            )
            self.starts.append(start)
            log.say(start.sentence)
            with served.explaining():
                yield served

    def launch(self, stack: str) -> Launch:
        return launch(self.cell, stack, self.image, self.project.share, kernels=self.kernels(stack))

    def kernels(self, stack: str) -> Path:
        """What this image has compiled and tuned at earlier starts of a stack."""
        image = self.built.model.config_digest.removeprefix("sha256:")[:12]
        return self.project.root / "out" / "kernels" / self.cell.id / image / stack


def _finished(stage: StageName, found: StageRecord[R] | None) -> R:
    """The result of a stage that the flow has already passed."""
    if found is None or found.result is None:
        raise LookupError(f"{stage} has no result, although a later stage runs")
    return found.result
