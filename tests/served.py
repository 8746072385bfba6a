"""A built cell whose stacks tests can serve, from a copy of the matrix with blocks of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pipeline.cell import Cell
from pipeline.names import names
from pipeline.probes.built import BuiltCell
from pipeline.probes.candidate import write_conf
from pipeline.project import Project
from pipeline.record import Record
from pipeline.results import BuiltImage, WeightsResult
from pipeline.serve import launch
from pipeline.suite import pregate_prompts, text_prompts
from pipeline.world.endpoint import Endpoint
from pipeline.world.engine import Engine
from pipeline.world.engine_container import Container
from pipeline.world.openai import direct_session
from pipeline.world.operators import OperatorEvidence
from pipeline.world.server import Served, serving
from pipeline.world.teacher import short_and_long
from tests.integration.conftest import CELL, copy_of_project
from tests.projects import Changes, copied_project, one_cell


@dataclass(kw_only=True)
class ServedCell:
    cell: Cell
    project: Project
    record: Record
    engine: Engine
    conf: Path  # mounted over the image's own, which knows nothing of a test's stacks

    @property
    def built(self) -> BuiltImage:
        build = self.record.stages.build
        assert build is not None
        assert build.result is not None
        return build.result.model

    @property
    def image(self) -> str:
        """By digest, as the staging registry has it."""
        return self.built.reference(names(self.cell, self.project.target("local")).staging_host)

    @property
    def searched(self) -> BuiltCell:
        """As a search and an operator check take it."""
        return BuiltCell(
            cell=self.cell,
            image=self.image,
            config_digest=self.built.config_digest,
            weights_sha256=self.weights.sha256,
            project=self.project,
            engine=self.engine,
        )

    @property
    def weights(self) -> WeightsResult:
        weights = self.record.stages.weights
        assert weights is not None
        assert weights.result is not None
        return weights.result

    @cached_property
    def prompts(self) -> list[str]:
        """What the pre-gate asks in a release of the cell."""
        downloads = self.project.share / "download"
        return list(pregate_prompts(self.cell, self.project.lock, downloads, print))

    @cached_property
    def other_prompts(self) -> list[str]:
        """As many as a release asks, of the same benchmarks and HumanEval, and none of those that it asks."""
        everything = self.cell.all_benchmarks
        named = {name: everything[name] for name in (*self.cell.gate.texts, "humaneval")}
        downloads = self.project.share / "download"
        known = set(self.prompts)
        texts = [
            text
            for text in text_prompts(named, self.project.lock, downloads, print)
            if text not in known
        ]
        return short_and_long(texts, len(self.prompts))

    @contextmanager
    def served(self, stack: str) -> Iterator[tuple[Served, Endpoint]]:
        started = launch(self.cell, stack, self.image, self.project.share)
        volumes = {**started.volumes, str(self.conf): f"{self.cell.conf_folder}:ro"}
        started = replace(started, volumes=volumes)
        with serving(self.engine, started, lambda _: None) as server:
            yield server, Endpoint(base_url=server.base_url, model=self.cell.served_name)


def built_cell(folder: Path, changes: Changes, *, share: Path) -> ServedCell:
    """The image that is released, with the changed configuration mounted.

    Weights and downloads in `share` are used again, and left there.
    """
    checkout = copy_of_project(folder)
    share.mkdir(parents=True, exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out/share").symlink_to(share)
    ran = checkout.run("weights", *CELL)
    assert ran.code == 0, ran.output
    project = copied_project(folder, changes)
    cell = one_cell(project, *CELL)
    return ServedCell(
        cell=cell,
        project=project,
        record=checkout.record(),
        engine=Engine.connect(),
        conf=write_conf(cell, project.templates, folder / "conf"),
    )


def switch_operators(
    endpoint: Endpoint, *, include: str = "", exclude: str = ""
) -> OperatorEvidence:
    """Other operators on a server in development mode, without a restart."""
    body = {"method": "switch_operators", "args": [include, exclude]}
    with direct_session() as session:
        answer = session.post(f"{endpoint.base_url}/collective_rpc", json=body, timeout=60)
    answer.raise_for_status()
    (evidence,) = answer.json()["results"]
    return OperatorEvidence.model_validate(evidence)


def plant(container: Container, fault: str) -> None:
    """The faults that tests/planted/library.py takes up when operators are switched next."""
    write = "import pathlib, sys; pathlib.Path('/tmp/planted-faults').write_text(sys.argv[1])"
    code, output = container.execute(["python", "-c", write, fault])
    assert code == 0, output
