"""What was asked for on the command line, and the cells, inputs and records that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pipeline.cell import Cell, select
from pipeline.culprits import Level
from pipeline.parts import Inputs
from pipeline.plan import Action, plan
from pipeline.project import Project
from pipeline.record import Record, StageName
from pipeline.world.node import node_class


@dataclass(frozen=True, kw_only=True)
class Options:
    command: str
    cells: list[str] = field(default_factory=list)
    matrix: Path = Path("matrix.yaml")
    target: str = "local"
    release: str | None = None
    until: StageName = "publish"
    check: bool = False
    publish: bool = False
    dry_run: bool = False
    json: bool = False
    github: bool = False
    explain: bool = False
    yes: bool = False
    fix: bool = False
    again: bool = False
    allow_partial: bool = False
    fail_fast: bool = False
    jobs: str = ""
    by: str | None = None
    reason: str = ""
    stack: str | None = None
    minutes: float = 60
    parallel: int = 1
    gpus: int = 1
    restart: bool = False
    apply: bool = False
    level: Level = "fail"
    policy: Path | None = None
    draws: int = 3000
    seed: int = 0
    node: str | None = None
    published: bool = False
    pieces: str = "60MiB"
    folder: Path = Path()
    word: str = ""
    ids: list[str] = field(default_factory=list)
    image: str = ""
    key: Path | None = None
    unsigned: bool = False
    card: list[Path] = field(default_factory=list)
    url: str | None = None
    tokenizer: str | None = None
    layout: Literal["flat", "eval_infos"] = "flat"


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
