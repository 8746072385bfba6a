from __future__ import annotations

import pytest
from scipy.stats import multivariate_normal, norm

from pipeline.gate.spending import crossing, look_level


def crossing_by_integration(level: float, looks: tuple[int, ...]) -> float:
    """Without our recursion: one minus the probability that a correlated normal stays below."""
    z = norm.isf(level)
    covariance = [[min(a, b) / (a * b) ** 0.5 for b in looks] for a in looks]
    normal = multivariate_normal(cov=covariance, abseps=1e-6, seed=1)
    return 1 - float(normal.cdf([z] * len(looks)))


def test_three_looks_at_a_twentieth_cross_once_in_ten() -> None:
    assert crossing(0.05, (1, 2, 4)) == pytest.approx(0.107, abs=5e-4)


def test_the_level_of_three_looks_is_the_fact_sheets() -> None:
    assert look_level(0.05, (1, 2, 4)) == pytest.approx(0.0218, abs=5e-5)


@pytest.mark.parametrize("alpha", [0.02, 0.05])
@pytest.mark.parametrize("looks", [(1, 2), (1, 2, 4), (2, 3, 8)])
def test_all_looks_together_cross_with_probability_alpha(
    alpha: float, looks: tuple[int, ...]
) -> None:
    level = look_level(alpha, looks)

    assert crossing(level, looks) == pytest.approx(alpha, rel=1e-6)
    assert crossing_by_integration(level, looks) == pytest.approx(alpha, abs=2e-5)


def test_one_look_spends_everything() -> None:
    assert look_level(0.05, (4,)) == 0.05
