"""Prints how often the gate passes and fails releases of which the truth is known, beside other rules."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.gate.scenarios import (
    FLIPS,
    SCENARIOS,
    Scenario,
    design_of,
    placed,
    sheet_design,
    truth_of,
)
from pipeline.gate.simulate import Design, Rates, operating_characteristics
from pipeline.policy import Gate
from pipeline.reporter import Reporter


def print_tables(gate: Gate, *, draws: int, seed: int, report: Reporter) -> None:
    """One row for each truth and share of flips, in Markdown, as docs/accuracy.md shows it."""
    report.say(f"{draws} releases a row, seed {seed}; shares of them; points are of 100\n")
    report.say(
        "| truth | flips | pass | fail | undecided | runs | sheet: pass | fail | runs "
        "| 50 items, 5 points | 5 points | relative 5 % |"
    )
    report.say("|---" * 12 + "|")
    for scenario, flips, ours, sheet in rates(design_of(gate), sheet_design(gate), draws, seed):
        words = (
            scenario.title,
            f"{flips:.0%}",
            *(f"{share:.3f}" for share in (ours.passed, ours.failed, ours.undecided)),
            f"{ours.runs:.2f}",
            f"{sheet.passed:.3f}",
            f"{sheet.failed:.3f}",
            f"{sheet.runs:.2f}",
            *(f"{share:.3f}" for share in (ours.points_50, ours.points, ours.relative)),
        )
        report.say(f"| {' | '.join(words)} |")


def rates(
    ours: Design, sheet: Design, draws: int, seed: int
) -> Iterator[tuple[Scenario, float, Rates, Rates]]:
    """Both rules see the same draws."""
    for scenario in SCENARIOS:
        for flips in FLIPS:
            truth = truth_of(scenario, flips)
            found = [
                operating_characteristics(placed(design, scenario), truth, draws=draws, seed=seed)
                for design in (ours, sheet)
            ]
            yield scenario, flips, found[0], found[1]
