"""The judge is judged: a smaller version of `nox -s simulate`, with tolerances."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import sqrt

import numpy as np
import pytest

from pipeline.gate.scenarios import CARD, SCENARIOS, design_of, placed, sheet_design, truth_of
from pipeline.gate.simulate import Rates, Truth, draw, operating_characteristics
from tests.projects import ROOT, committed

DRAWS = 300
GATE = committed().matrix.gate


@cache
def rates(title: str, flips: float, *, is_sheet: bool = False) -> Rates:
    scenario = next(one for one in SCENARIOS if one.title == title)
    design = sheet_design(GATE) if is_sheet else design_of(GATE)
    return operating_characteristics(
        placed(design, scenario), truth_of(scenario, flips), draws=DRAWS, seed=11
    )


def at_most(share: float) -> float:
    """The highest share of DRAWS that a true `share` shows, but for one time in a thousand."""
    return share + 3.1 * sqrt(max(share, 1 / DRAWS) * (1 - share) / DRAWS)


@pytest.mark.parametrize("flips", [0.03, 0.06, 0.10])
def test_equal_stacks_pass_and_are_hardly_ever_failed(flips: float) -> None:
    found = rates("equal", flips)

    assert 1 - found.passed <= at_most(0.04)
    assert found.failed <= at_most(0.04)


def test_a_set_at_its_margin_of_power_does_not_keep_equal_stacks_from_passing() -> None:
    found = rates("equal, CMMMU at its margin of power", 0.10)

    assert 1 - found.passed <= at_most(0.05)


@pytest.mark.parametrize("persistent", [1 / 3, 1.0])
def test_correlated_repeats_fail_no_more_equal_stacks(persistent: float) -> None:
    truth = Truth(flips=0.10, loss=np.zeros(len(CARD)), persistent=persistent)
    found = operating_characteristics(design_of(GATE), truth, draws=DRAWS, seed=3)

    assert found.failed <= at_most(0.04)


@pytest.mark.parametrize(
    ("title", "flips", "share"),
    [
        ("equal, a third of the flips in every run", 0.06, 0.985),
        ("equal, a third of the flips in every run", 0.10, 0.882),
        ("equal, all flips in every run", 0.06, 0.751),
        ("equal, all flips in every run", 0.10, 0.297),
    ],
)
def test_equal_stacks_pass_as_often_as_the_page_says_when_repeats_are_correlated(
    title: str, flips: float, share: float
) -> None:
    """Shares of 3,000 draws of the table in docs/accuracy.md, shown by DRAWS of another seed."""
    page = (ROOT / "docs/accuracy.md").read_text("utf-8")
    assert f"\n| {title} | {flips:.0%} | {share:.3f} |" in page

    found = rates(title, flips)
    assert abs(found.passed - share) <= at_most(share) - share
    assert found.failed <= at_most(0.04)


@pytest.mark.parametrize("title", ["a third of the flips in every run", "all flips in every run"])
def test_correlated_repeats_leave_undecided_what_independent_ones_pass(title: str) -> None:
    """.96 is promised for independent repeats only."""
    independent, correlated = rates("equal", 0.10), rates(f"equal, {title}", 0.10)

    assert at_most(correlated.passed) < 0.96 <= independent.passed
    assert correlated.undecided > 0.05 > independent.undecided


@pytest.mark.parametrize(
    ("title", "most"),
    [
        ("all -1", 0.03),
        ("all -1, a third of the flips in every run", 0.03),
        ("all -2", 0.005),
        ("only CMMMU -5", 0.01),
        ("only CMMMU -3, its margin", 0.05),
        ("only CII-Bench -3, its margin", 0.05),
        ("only MathVision -3, its margin", 0.05),
    ],
)
def test_damaged_stacks_hardly_ever_pass(title: str, most: float) -> None:
    assert rates(title, 0.10).passed <= at_most(most)


def test_the_published_rules_pass_damage_that_this_gate_stops() -> None:
    found = rates("only CMMMU -5", 0.10)

    assert found.points_50 > 0.4
    assert found.points > 0.4
    assert rates("all -2", 0.10).points > 0.9
    assert rates("all -1", 0.10).relative > 0.5


def test_asking_only_what_is_undecided_costs_less_and_fails_less_than_the_fact_sheets_rule() -> (
    None
):
    ours, sheet = rates("equal", 0.10), rates("equal", 0.10, is_sheet=True)

    assert ours.runs < 1.35 < 1.6 < sheet.runs
    assert ours.failed <= sheet.failed
    assert rates("all -0.5", 0.10).passed > rates("all -0.5", 0.10, is_sheet=True).passed


def test_the_same_seed_draws_the_same_releases() -> None:
    scenario = SCENARIOS[0]
    design, truth = design_of(GATE), truth_of(scenario, 0.06)

    once, again, other = (
        operating_characteristics(design, truth, draws=20, seed=seed) for seed in (1, 1, 2)
    )
    assert once == again
    assert once != other


def test_drawn_releases_have_the_flips_the_losses_and_the_scores_that_are_true() -> None:
    loss = np.linspace(0, 0.05, len(CARD))
    design = design_of(GATE)
    looks = draw(
        design, Truth(flips=0.10, loss=loss, persistent=0.25), 400, np.random.default_rng(5)
    )
    first, last = looks[0], looks[-1]

    for evidence in looks:
        assert evidence.difference.mean(axis=0) == pytest.approx(-loss, abs=2e-3)
        assert evidence.reference.mean(axis=0) == pytest.approx(design.scores, abs=4e-3)
        spread = evidence.difference.std(axis=0, ddof=1)
        assert np.sqrt((evidence.error**2).mean(axis=0)) == pytest.approx(spread, rel=0.12)
    flips = (first.lost + first.gained).mean(axis=0) / design.items
    assert flips == pytest.approx(np.full(len(CARD), 0.10), abs=2e-3)
    assert np.all(last.error.mean(axis=0) < first.error.mean(axis=0))


def test_a_policy_without_spending_accepts_a_loss_at_the_margin_too_often() -> None:
    """The simulation sees what it is for: three looks at .05 each are not .05."""
    scenario = next(one for one in SCENARIOS if one.title == "only CII-Bench -3, its margin")
    design = design_of(GATE)
    careless = replace(design.rule, level=0.05, harm_level=0.0)
    found = operating_characteristics(
        replace(design, rule=careless), truth_of(scenario, 0.10), draws=DRAWS, seed=11
    )

    assert found.passed > 0.07
