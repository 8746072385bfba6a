"""The picture of a card: the difference of every benchmark with its interval and margin, as SVG. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.accuracy_result import BenchmarkVerdict
from pipeline.cards.facts import Measured
from pipeline.templates import Templates

WIDTH, LEFT, RIGHT, TOP, ROW, BELOW = 700, 170, 30, 14, 28, 74  # pixels
MOST_TICKS = 9
DECIDES, SHOWN = "#1f6feb", "#8b949e"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Points to pixels."""

    low: float
    high: float

    def __call__(self, points: float) -> float:
        share = (points - self.low) / (self.high - self.low)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def differences_plot(measured: Measured, templates: Templates) -> bytes:
    """The same bytes for the same record, which has a benchmark at least."""
    rows = measured.judged
    scale = _scale(rows)
    bottom = TOP + ROW * len(rows)
    return templates.render(
        "parts/card/differences.svg.j2",
        width=WIDTH,
        height=bottom + BELOW,
        left=LEFT,
        top=TOP,
        bottom=bottom,
        ticks=[
            {"x": scale(value), "text": f"{value:g}", "is_zero": value == 0}
            for value in _ticks(scale)
        ],
        bars=[
            {
                "title": measured.about.benchmarks[row.benchmark].title,
                "y": TOP + ROW * place + ROW // 2,
                "low": scale(100 * row.lower_bound),
                "middle": scale(100 * row.difference),
                "high": scale(100 * row.upper_bound),
                "margin": scale(-100 * row.margin),
                "color": DECIDES if row.has_power and row.tier == "critical" else SHOWN,
            }
            for place, row in enumerate(rows)
        ],
    )


def _scale(rows: Sequence[BenchmarkVerdict]) -> Scale:
    """Wide enough for every interval and margin, and for zero."""
    low = min(min(row.lower_bound, -row.margin) for row in rows)
    high = max(max(row.upper_bound, 0.0) for row in rows)
    room = 0.04 * (high - low)
    return Scale(low=100 * (low - room), high=100 * (high + room))


def _ticks(scale: Scale) -> list[float]:
    """At multiples of 1, 2 or 5 times a power of ten, as many as fit."""
    least = (scale.high - scale.low) / MOST_TICKS
    power = 10 ** math.floor(math.log10(least))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least)
    first, last = math.ceil(scale.low / step), math.floor(scale.high / step)
    return [round(step * count, 6) + 0.0 for count in range(first, last + 1)]
