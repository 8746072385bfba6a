"""Records with the words of every chip and model of the matrix, and the measurements of a test's record."""

from __future__ import annotations

from functools import cache
from typing import Any

from pipeline.cell import Cell
from pipeline.record import Record, StageRecord
from tests.projects import committed
from tests.record_parts import accuracy_of, load, passed, performance_of, verdict_row
from tests.records import cpu_record, nvidia_record

PROJECT = committed()


def chosen() -> list[Cell]:
    """The first cell of every chip and of every model, each once."""
    first: dict[str, Cell] = {}
    for cell in PROJECT.cells:
        first.setdefault(f"chip {cell.chip_id}", cell)
        first.setdefault(f"model {cell.model_id}", cell)
    return list({cell.id: cell for cell in first.values()}.values())


def record_of(cell: Cell) -> Record:
    """As if the cell had been measured: its own words, a test's numbers."""
    return _record_of(cell.id)


@cache
def _record_of(cell_id: str) -> Record:
    (cell,) = (cell for cell in PROJECT.cells if cell.id == cell_id)
    record = nvidia_record()
    own = PROJECT.inputs(cell, PROJECT.target("local"), builder=None, node="here").about
    stacks = (own.reference, own.released)
    smoke = record.stages.smoke
    assert smoke is not None
    loads = (load(stack, 16, 900.4, 210.0, 15.2) for stack in stacks)
    results = {
        "accuracy": accuracy_of(
            stacks, verdict_row("mmmu", 900, (640, 638), (12, 10), (-0.0113, 0.0068), 0.25)
        ),
        "performance": performance_of(*loads, ratios=((16, 1.0),)),
    }
    stages: dict[str, StageRecord[Any] | None] = {
        name: passed(result, **smoke.parts) for name, result in results.items()
    }
    if own.weights.pypi:
        stages["weights"] = cpu_record().stages.weights
    return record.model_copy(
        update={
            "cell": cell.id,
            "chip": cell.chip_id,
            "model": cell.model_id,
            "about": own.model_copy(update={"benchmarks": record.about.benchmarks}),
            "stages": record.stages.model_copy(update=stages),
        }
    )
