"""One image of `cpu/smollm2` that can serve every stack of the trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.cell import Cell, names
from pipeline.project import Project
from pipeline.record import Record
from pipeline.serve import launch
from pipeline.world.engine import Engine
from pipeline.world.evaluator import Endpoint
from pipeline.world.server import Served, serving
from tests.integration.conftest import CELL, copy_of_project
from tests.projects import ROOT, copied_project, one_cell
from tests.trials.stacks import changes


@dataclass(frozen=True, kw_only=True)
class TrialCell:
    cell: Cell
    project: Project
    record: Record
    engine: Engine
    image: str  # by digest, in staging

    @contextmanager
    def served(self, stack: str) -> Iterator[tuple[Served, Endpoint]]:
        started = launch(self.cell, stack, self.image, self.project.share)
        with serving(self.engine, started, lambda _: None) as server:
            yield server, Endpoint(base_url=server.base_url, model=self.cell.served_name)


@pytest.fixture(scope="session")
def trial_cell(tmp_path_factory: pytest.TempPathFactory) -> TrialCell:
    """Built by the pipeline from a changed matrix. Weights stay in out/ of this checkout, for the next trial."""
    checkout = copy_of_project(tmp_path_factory.mktemp("trial"))
    _share_weights(checkout.root)
    project = copied_project(checkout.root, changes())
    ran = checkout.run("weights", *CELL)
    assert ran.code == 0, ran.output
    cell, record = one_cell(project, *CELL), checkout.record()
    assert record.stages.build is not None
    assert record.stages.build.result is not None
    built, staged = record.stages.build.result.model, names(cell, project.target("local"))
    return TrialCell(
        cell=cell,
        project=project,
        record=record,
        engine=Engine.connect(),
        image=f"{staged.staging_host}/{built.repository}@{built.manifest_digest}",
    )


def _share_weights(root: Path) -> None:
    (ROOT / "out/share").mkdir(parents=True, exist_ok=True)
    (root / "out").mkdir(exist_ok=True)
    (root / "out/share").symlink_to(ROOT / "out/share")
