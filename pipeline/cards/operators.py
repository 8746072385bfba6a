"""What a card says of the operators of the released stack's library. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.cards.facts import Measured
from pipeline.smoke_result import OperatorRow


@dataclass(frozen=True, kw_only=True)
class OperatorSummary:
    """Of the library of the released stack."""

    registered: int | None  # None: the record is of a time when nobody looked
    ran: tuple[str, ...]
    compared: tuple[OperatorRow, ...]  # with the CPU in the smoke test; the least exact first
    unchecked: str  # why none was compared

    @property
    def compared_calls(self) -> int:
        return sum(row.checked for row in self.compared)

    @property
    def served_calls(self) -> int:
        return sum(row.served for row in self.compared)

    @property
    def least_exact(self) -> str:
        """Empty where all were as exact as two decimals tell."""
        return self.compared[0].name if self.of_allowed != "0.00" else ""

    @property
    def of_allowed(self) -> str:
        """Of the least exact one."""
        return f"{self.compared[0].of_allowed:.2f}"


def operator_summary(measured: Measured) -> OperatorSummary:
    """As the questions were answered; as the smoke test saw it, in a record that has no more."""
    operators = measured.accuracy.operators if measured.accuracy else None
    seen = (operators or {}).get(measured.about.released)
    checked = (row for row in measured.smoke.operators if row.checked)
    return OperatorSummary(
        registered=len(seen.registered) if seen and seen.states else None,
        ran=seen.ran if seen and seen.states else measured.facts.operators or (),
        compared=tuple(sorted(checked, key=lambda row: (-row.of_allowed, row.name))),
        unchecked=measured.smoke.operators_unchecked,
    )
