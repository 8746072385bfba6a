"""What to do about a result, where the result itself tells. Pure."""

from __future__ import annotations

from pipeline.accuracy_result import AccuracyResult
from pipeline.cell import Cell
from pipeline.rehearsal import RehearseResult
from pipeline.results import Frozen


def next_step(cell: Cell, result: Frozen | None) -> str:
    """A pre-gate that failed or warned, on a stack with an operator library, has an operator to look for."""
    if isinstance(result, RehearseResult):
        again = f"nox -s rehearse -- {cell.chip_id} {cell.model_id}"
        return (
            f"mend the command in templates/parts/card/commands.j2, or what it found; then {again}"
        )
    logits = result.logits if isinstance(result, AccuracyResult) else None
    if logits is None or logits.status not in ("fail", "warn"):
        return ""
    if cell.asked_operators(cell.chip.released) is None:
        return ""
    return f"to find the operator at fault: nox -s bisect -- {cell.chip_id} {cell.model_id}"
