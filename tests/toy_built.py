"""The toy cell as it was built: what a search and an operator check take."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.cell import Cell
from pipeline.probes.built import BuiltCell, candidate_of
from pipeline.probes.candidate import Candidate, Library
from pipeline.project import Project
from pipeline.world.engine import Engine
from tests.fakes import FakeEngine


def toy_built(project: Project, cell: Cell, engine: Engine | None = None) -> BuiltCell:
    return BuiltCell(
        cell=cell,
        image="registry.test/poet@sha256:ab",
        config_digest="sha256:cd",
        weights_sha256="ef",
        project=project,
        engine=engine or FakeEngine(),
    )


def toy_candidate(
    project: Project, cell: Cell, engine: Engine, operators: Iterable[str]
) -> Candidate:
    """Its stack `fast`, of whose library these can be registered."""
    library = Library(operators=tuple(operators), packages={})
    return candidate_of(toy_built(project, cell, engine), "fast", library)
