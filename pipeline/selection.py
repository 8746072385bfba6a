"""The cells, inputs and records that the command line names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cell import Cell
from pipeline.cells import select
from pipeline.options import Options
from pipeline.parts import Inputs
from pipeline.plan import Action, plan
from pipeline.project import Project
from pipeline.record import Record, StageName
from pipeline.world.node import node_class


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Cells, what their keys are made of, and their records."""

    project: Project
    cells: tuple[Cell, ...]
    inputs: Mapping[str, Inputs]
    past: Mapping[str, tuple[Record, ...]]

    def actions(self, release: str, until: StageName) -> tuple[Action, ...]:
        return plan(self.cells, self.inputs, self.past, release=release, until=until)


def project_of(options: Options) -> Project:
    return Project(Path.cwd(), options.matrix, options.node, published=options.published)


def selection_of(options: Options, *, builder: str | None) -> Selection:
    project = project_of(options)
    cells = select(project.matrix, options.cells)
    target, past = project.target(options.target), project.past(cells)
    chips = {cell.chip_id: cell.chip for cell in cells}
    nodes = {chip_id: node_class(chip) for chip_id, chip in chips.items()}
    inputs = {}
    for cell in cells:
        last = next(
            (
                r.stages.build.result.builder
                for r in past[cell.id]
                if r.stages.build and r.stages.build.result
            ),
            None,
        )
        inputs[cell.id] = project.inputs(
            cell, target, builder=builder or last, node=nodes[cell.chip_id]
        )
    return Selection(project=project, cells=cells, inputs=inputs, past=past)
