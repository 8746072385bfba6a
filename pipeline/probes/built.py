"""The cell as it was built: what is searched and checked in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.cell import Cell
from pipeline.probes.candidate import Candidate, Library
from pipeline.project import Project
from pipeline.world.engine import Engine


@dataclass(frozen=True, kw_only=True)
class BuiltCell:
    """An image of a cell, with whole weights."""

    cell: Cell
    image: str  # by digest
    config_digest: str
    weights_sha256: str
    project: Project
    engine: Engine

    @property
    def folder(self) -> Path:
        return self.project.bisect_folder(self.cell)


def candidate_of(served: BuiltCell, stack: str, library: Library) -> Candidate:
    return Candidate(
        cell=served.cell,
        stack=stack,
        image=served.image,
        operators=frozenset(library.operators),
        share=served.project.share,
        templates=served.project.templates,
        engine=served.engine,
        folder=served.folder,
    )
