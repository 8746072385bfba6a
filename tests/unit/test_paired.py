from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb, inf, log, sqrt

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binomtest

from pipeline.gate.paired import (
    holm_rejections,
    mcnemar_harm,
    score_lower_bound,
    tango_lower_bound,
    tango_upper_bound,
    tango_z,
    z_of,
)
from pipeline.gate.planning import equal_pass_probability, has_power, pass_probability

Z05 = 1.6448536269514722
# b, c, n and the lower bound in points at z = 1.644854, from facts/accuracy-gate.md.
VECTORS = [
    (10, 6, 900, -1.2606),
    (40, 36, 900, -2.0664),
    (0, 0, 198, -1.3480),
    (0, 0, 900, -0.2997),
    (3, 0, 198, -3.7304),
    (60, 50, 1730, -1.5911),
]
TABLES = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda lost: st.tuples(st.just(lost), st.integers(0, n - lost), st.just(n))
    )
)


def z_by_maximisation(lost: int, gained: int, n: int, difference: float) -> float:
    """Tango's statistic without the closed form: the likelihood is maximised numerically.

    Under "gained share - lost share = difference" one free parameter is left, the lost share.
    """

    def share(count: int, probability: float) -> float:
        return 0.0 if count == 0 else -inf if probability <= 0 else count * log(probability)

    def minus_loglikelihood(lost_share: float) -> float:
        gained_share = lost_share + difference
        return -(
            share(lost, lost_share)
            + share(gained, gained_share)
            + share(n - lost - gained, 1 - lost_share - gained_share)
        )

    low, high = max(0.0, -difference), (1 - difference) / 2
    found = minimize_scalar(
        minus_loglikelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    at = min((low, float(found.x)), key=minus_loglikelihood)
    variance = (2 * at + difference - difference**2) / n
    return ((gained - lost) / n - difference) / sqrt(variance)


@pytest.mark.parametrize(("lost", "gained", "n", "points"), VECTORS)
def test_tangos_bound_equals_the_published_vectors(
    lost: int, gained: int, n: int, points: float
) -> None:
    assert 100 * tango_lower_bound(lost, gained, n, Z05) == pytest.approx(points, abs=5e-5)


@pytest.mark.parametrize(("lost", "gained", "n", "points"), VECTORS)
def test_tangos_bound_equals_a_numerical_maximisation_of_the_likelihood(
    lost: int, gained: int, n: int, points: float
) -> None:
    second = brentq(
        lambda difference: z_by_maximisation(lost, gained, n, difference) - Z05,
        -0.5,
        (gained - lost) / n - 1e-9,
    )

    assert tango_lower_bound(lost, gained, n, Z05) == pytest.approx(second, abs=1e-6)
    assert 100 * second == pytest.approx(points, abs=1e-4)


@pytest.mark.parametrize(
    ("table", "points"),
    list(zip(VECTORS, (-1.4834, -2.4495, -2.0147, -0.4503, -4.4821, -1.8286), strict=True)),
)
def test_bounds_at_the_level_of_three_looks_agree_with_the_maximisation_too(
    table: tuple[int, int, int, float], points: float
) -> None:
    lost, gained, n, _ = table
    second = brentq(
        lambda difference: z_by_maximisation(lost, gained, n, difference) - 2.0177,
        -0.5,
        (gained - lost) / n - 1e-9,
    )

    assert 100 * tango_lower_bound(lost, gained, n, 2.0177) == pytest.approx(points, abs=2e-4)
    assert 100 * second == pytest.approx(points, abs=2e-4)


@pytest.mark.parametrize(
    ("lost", "gained"), [(1, 0), (5, 0), (12, 3), (40, 36), (3, 9), (900, 700)]
)
def test_mcnemar_is_scipys_exact_binomial_test(lost: int, gained: int) -> None:
    expected = binomtest(gained, lost + gained, 0.5, alternative="less").pvalue

    assert float(mcnemar_harm(lost, gained)) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(TABLES, st.floats(-0.95, 0.95))
def test_tangos_statistic_equals_the_maximisation_on_any_table(
    table: tuple[int, int, int], difference: float
) -> None:
    lost, gained, n = table
    assume(abs(difference) > 1e-6 or lost + gained > 0)  # 0/0 there
    closed = tango_z(lost, gained, n, difference)

    assert closed == pytest.approx(
        z_by_maximisation(lost, gained, n, difference), rel=1e-4, abs=1e-4
    )


def test_tangos_interval_equals_the_one_in_the_tests_of_rs_contingencytables() -> None:
    z = 1.959963984540054

    assert tango_lower_bound(16, 6, 161, z) == pytest.approx(-0.1240, abs=5e-5)
    assert tango_upper_bound(16, 6, 161, z) == pytest.approx(-0.0054, abs=5e-5)


@pytest.mark.parametrize("n", [1, 50, 100, 198, 900])
def test_without_flips_the_bound_is_z2_over_n_plus_z2(n: int) -> None:
    assert tango_lower_bound(0, 0, n, Z05) == pytest.approx(-(Z05**2) / (n + Z05**2), abs=1e-9)


def test_tangos_statistic_at_zero_is_mcnemars() -> None:
    assert tango_z(16, 6, 161, 0.0) == pytest.approx((6 - 16) / sqrt(22))


@settings(max_examples=50, deadline=None)
@given(TABLES)
def test_bounds_enclose_the_difference_and_mirror_when_the_stacks_are_swapped(
    table: tuple[int, int, int],
) -> None:
    lost, gained, n = table
    lower, upper = tango_lower_bound(*table, Z05), tango_upper_bound(*table, Z05)

    assert -1 <= lower <= (gained - lost) / n <= upper <= 1
    assert tango_lower_bound(gained, lost, n, Z05) == -upper


@settings(max_examples=50, deadline=None)
@given(TABLES, st.sampled_from([0.01, 0.03, 0.08, 0.2]))
def test_the_bound_is_above_minus_the_margin_exactly_when_the_statistic_rejects_it(
    table: tuple[int, int, int], margin: float
) -> None:
    bound = tango_lower_bound(*table, Z05)

    if abs(bound + margin) > 1e-9:
        assert (bound > -margin) == (tango_z(*table, -margin) > Z05)


@pytest.mark.parametrize(("lost", "gained"), [(1, 0), (5, 0), (8, 1), (12, 3), (40, 36), (3, 9)])
def test_mcnemar_is_the_exact_share_of_coin_tosses(lost: int, gained: int) -> None:
    tosses = lost + gained
    as_few = sum(comb(tosses, heads) for heads in range(gained + 1))

    assert mcnemar_harm(lost, gained) == pytest.approx(float(Fraction(as_few, 2**tosses)))


def test_mcnemar_of_five_losses_and_no_gain_is_one_in_thirty_two() -> None:
    assert mcnemar_harm(5, 0) == 1 / 32


def test_mcnemar_without_flips_is_one() -> None:
    assert mcnemar_harm(0, 0) == 1.0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.001, 0.011, 0.016, 0.02, 0.04, 0.3]), min_size=1, max_size=5))
def test_holm_is_the_closed_bonferroni_test(p_values: list[float]) -> None:
    indices = range(len(p_values))
    families = [
        family for size in indices for family in combinations(indices, size + 1)
    ]  # every intersection hypothesis

    def is_rejected(family: tuple[int, ...]) -> bool:
        return min(p_values[index] for index in family) <= 0.05 / len(family)

    assert tuple(holm_rejections(p_values, 0.05)) == tuple(
        all(is_rejected(family) for family in families if index in family) for index in indices
    )


def test_z_of_a_twentieth_is_1_644854() -> None:
    assert z_of(0.05) == pytest.approx(1.644854, abs=1e-6)


def test_wilsons_bound_solves_the_score_equation() -> None:
    low = score_lower_bound(0.42, 100, 0.05)

    assert (0.42 - low) / sqrt(low * (1 - low) / 100) == pytest.approx(Z05)


@pytest.mark.parametrize(("right", "expected"), [(40, False), (41, True)])
def test_a_hundred_four_way_items_have_power_from_forty_one_right(
    right: int, expected: bool
) -> None:
    assert has_power(right, 100, chance=0.25, margin=0.08, power_margins=1, alpha=0.05) is expected


def test_an_equal_candidate_passes_three_sets_of_a_hundred_at_eight_points() -> None:
    assert equal_pass_probability(100, 0.08, 0.03, 0.05, 3) == pytest.approx(0.9247, abs=5e-5)


def test_the_pass_probability_equals_a_sum_over_every_table() -> None:
    n, margin, flip, alpha, sets = 30, 0.2, 0.1, 0.05, 2
    total = 0.0
    for lost in range(n + 1):
        for gained in range(n + 1 - lost):
            passes = (
                tango_lower_bound(lost, gained, n, z_of(alpha)) > -margin
                and mcnemar_harm(lost, gained) > alpha / sets
            )
            total += bool(passes) * trinomial(n, lost, gained, flip / 2)

    assert equal_pass_probability(n, margin, flip, alpha, sets) == pytest.approx(total**sets)


def trinomial(n: int, lost: int, gained: int, share: float) -> float:
    ways = comb(n, lost) * comb(n - lost, gained)
    return ways * share ** (lost + gained) * (1 - 2 * share) ** (n - lost - gained)


def test_without_flips_an_equal_candidate_always_passes() -> None:
    assert equal_pass_probability(100, 0.08, 0.0, 0.05, 3) == pytest.approx(1.0)


def test_a_candidate_at_the_margin_passes_no_more_often_than_the_level() -> None:
    at_margin = pass_probability(
        100, 0.08, lost_share=0.085, gained_share=0.005, alpha=0.05, sets=1
    )

    assert 0.01 < at_margin < 0.055
