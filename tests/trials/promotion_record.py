"""What the trial of promotions through faults saw, as it is committed under records/trials/, and its table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pipeline.results import Frozen
from tests.projects import ROOT
from tests.promotion_site import Row

PROMOTION_RECORD = ROOT / "records/trials/promotion-faults.json"
PAGE = ROOT / "docs/registry.md"
START, END = "<!-- faults: written by the trial -->\n", "<!-- end of faults -->\n"
KILLS = 20


class PromotionFaults(Frozen):
    trial_schema: Literal[1] = 1
    finished: str  # UTC, ISO 8601
    node: str
    registry: str
    cells: int
    requests: int  # of a promotion that nothing disturbs
    seed: int
    rows: tuple[Row, ...]

    @property
    def kills(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.fault == "kill -9")


def table(record: PromotionFaults) -> str:
    """The kills in one line, every other fault in a line of its own."""
    kills = record.kills
    right = sum(row.is_right for row in kills)
    counts = {
        state: sum(row.after_next_run == state for row in kills)
        for state in ("old", "new", "mixed")
    }
    lines = [
        "| fault | where | the promotion ended | seconds | public tags then | after the next run | promoted anew |",
        "|---|---|---|---|---|---|---|",
        f"| **`kill -9`** | {len(kills)} random requests of {record.requests} | killed | | "
        f"{_counted(row.after_fault for row in kills)} | **{right} of {len(kills)} right**: "
        f"{counts['old']} all old, {counts['new']} all new, {counts['mixed']} mixed |"
        f" {_counted(row.after_promotion for row in kills)} |",
    ]
    for row in record.rows:
        if row not in kills:
            cells = (
                row.fault,
                row.at,
                row.ended,
                f"{row.seconds:.1f}",
                row.after_fault,
                row.after_next_run,
                row.after_promotion,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _counted(states: Iterable[str]) -> str:
    found = list(states)
    return ", ".join(
        f"{found.count(state)} {state}" for state in ("old", "new", "mixed") if state in found
    )


def written_table() -> str:
    return PAGE.read_text("utf-8").partition(START)[2].partition(END)[0]
