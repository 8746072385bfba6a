"""The picture of a card: the difference of every benchmark with its interval and margin, as SVG. Pure."""

from __future__ import annotations

import io
from collections.abc import Sequence

from pipeline.cards.facts import Measured
from pipeline.results import BenchmarkVerdict

WIDTH_IN, ROW_IN, FRAME_IN = 7.0, 0.34, 0.9
DECIDES, SHOWN = "#1f6feb", "#8b949e"


def differences_plot(measured: Measured) -> bytes:
    """The same bytes for the same record."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = measured.accuracy.verdict.benchmarks
    titles = [measured.about.benchmarks[row.benchmark].title for row in rows]
    # Text stays text, so that the file is small and the page's own font is used.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "flagrelease"}):
        figure = Figure(figsize=(WIDTH_IN, FRAME_IN + ROW_IN * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            color = DECIDES if _decides(row) else SHOWN
            low, middle, high = _points(row.lower_bound, row.difference, row.upper_bound)
            axes.plot([low, high], [place, place], color=color, linewidth=2)
            axes.plot([middle], [place], "o", color=color, markersize=6)
            axes.plot([-100 * row.margin], [place], "|", color="#cf222e", markersize=12)
        axes.axvline(0, color="#57606a", linewidth=0.8)
        axes.set_yticks(range(len(rows)), labels=titles)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("released − reference (points); red: the margin; grey: does not decide")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _decides(row: BenchmarkVerdict) -> bool:
    return row.has_power and row.tier == "critical"


def _points(*shares: float) -> Sequence[float]:
    return [100 * share for share in shares]
