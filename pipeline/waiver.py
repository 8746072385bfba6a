"""Who takes it upon himself that a cell goes out although its accuracy was not decided."""

from __future__ import annotations

from datetime import date

from pydantic import Field

from pipeline.matrix_values import CellId, Strict


class Waiver(Strict):
    cell: CellId
    by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: date  # the last day it holds

    def stands_on(self, today: date) -> bool:
        return today <= self.expires

    @property
    def sentence(self) -> str:
        return f"{self.by} waives it until {self.expires}: {self.reason}"
