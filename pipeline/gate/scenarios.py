"""What the simulation draws: the card's nine benchmarks, and what may be true of a candidate. Data."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.gate.looks import Rule, rule_of
from pipeline.gate.paired import score_lower_bound
from pipeline.gate.simulate import Design, Truth
from pipeline.policy import Gate


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    title: str
    items: int
    score: float  # about what a strong reference scores
    chance: float
    is_critical: bool = True


# Sizes as facts/accuracy-gate.md counts them; scores only decide whether a set has power.
CARD = (
    Benchmark(title="CMMMU", items=900, score=0.55, chance=0.25),
    Benchmark(title="MMMU", items=900, score=0.66, chance=0.25),
    Benchmark(title="MMMU-Pro standard", items=1730, score=0.50, chance=0.10),
    Benchmark(title="MMMU-Pro vision", items=1730, score=0.45, chance=0.10),
    Benchmark(title="MM-Vet v2", items=517, score=0.65, chance=0.0, is_critical=False),
    Benchmark(title="OCRBench", items=1000, score=0.83, chance=0.0),
    Benchmark(title="MathVision", items=3040, score=0.48, chance=0.10),
    Benchmark(title="CII-Bench", items=765, score=0.60, chance=0.17),
    Benchmark(title="BLINK", items=1901, score=0.62, chance=0.38),
)
FLIPS = (0.03, 0.06, 0.10)
SHEET_LEVEL = 0.0218  # of every test at each of the fact sheet's three looks


@dataclass(frozen=True, kw_only=True)
class Scenario:
    title: str
    loss: float = 0.0  # of every benchmark, or of `only`
    only: str = ""
    persistent: float = 0.0  # share of the flips that come back in every run
    at_power: str = ""  # a benchmark whose reference is as often powerless as not


SCENARIOS = (
    Scenario(title="equal"),
    Scenario(title="equal, a third of the flips in every run", persistent=1 / 3),
    Scenario(title="equal, all flips in every run", persistent=1.0),
    Scenario(title="equal, CMMMU at its margin of power", at_power="CMMMU"),
    Scenario(title="all -0.3", loss=0.003),
    Scenario(title="all -0.5", loss=0.005),
    Scenario(title="all -1", loss=0.01),
    Scenario(title="all -1, a third of the flips in every run", loss=0.01, persistent=1 / 3),
    Scenario(title="all -2", loss=0.02),
    Scenario(title="all -3", loss=0.03),
    Scenario(title="all -5", loss=0.05),
    Scenario(title="only CMMMU -3, its margin", loss=0.03, only="CMMMU"),
    Scenario(title="only MathVision -3, its margin", loss=0.03, only="MathVision"),
    Scenario(title="only CII-Bench -3, its margin", loss=0.03, only="CII-Bench"),
    Scenario(title="only CMMMU -5", loss=0.05, only="CMMMU"),
    Scenario(title="only MathVision -5", loss=0.05, only="MathVision"),
)


def design_of(gate: Gate) -> Design:
    """The policy on the card's benchmarks, all with its default margin."""
    rule = rule_of(gate, {one.title: one.chance for one in CARD})
    critical = np.array([one.is_critical for one in CARD])
    return _design(replace(rule, is_critical=critical), gate.looks)


def sheet_design(gate: Gate) -> Design:
    """The fact sheet's rule: one level for everything, and all asked again until all pass at once."""
    ours = design_of(gate)
    rule = replace(
        ours.rule,
        level=SHEET_LEVEL,
        pooled_level=SHEET_LEVEL,
        harm_level=SHEET_LEVEL,
        pooled_margin=0.01,
    )
    return replace(ours, looks=(1, 2, 4), rule=rule, repeats_all=True)


def truth_of(scenario: Scenario, flips: float) -> Truth:
    loss = [scenario.loss if scenario.only in ("", one.title) else 0.0 for one in CARD]
    return Truth(flips=flips, loss=np.array(loss), persistent=scenario.persistent)


def placed(design: Design, scenario: Scenario) -> Design:
    """The design with a benchmark's reference where its power hangs on the draw."""
    if not scenario.at_power:
        return design
    at = [one.title for one in CARD].index(scenario.at_power)
    wanted = design.rule.chance[at] + design.rule.power_margins * design.rule.margins[at]
    n, grid = design.items[at], np.linspace(0, 1, 100_001)
    reaching = score_lower_bound(grid, n, design.rule.level) >= wanted
    scores = design.scores.copy()
    scores[at] = grid[int(np.argmax(reaching))]
    return replace(design, scores=scores)


def _design(rule: Rule, looks: tuple[int, ...]) -> Design:
    return Design(
        items=np.array([float(one.items) for one in CARD]),
        scores=np.array([one.score for one in CARD]),
        looks=looks,
        rule=rule,
    )
