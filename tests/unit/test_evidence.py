from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, ttest_1samp
from scipy.stats import t as student

from pipeline.gate.evidence import Evidence
from pipeline.gate.paired import mcnemar_harm, tango_lower_bound, z_of
from pipeline.gate.pairing import pair
from tests.gate_rows import STACKS, Scores, rows_of_scores

ALPHA = 0.03


def evidence_of(
    reference: Scores, candidate: Scores, runs: int, clusters: dict[int, str] | None = None
) -> Evidence:
    rows = rows_of_scores("b", reference, candidate, clusters)
    return pair(rows, STACKS, is_generated=False).evidence(runs)


def drawn(n: int, runs: int, seed: int) -> tuple[list[list[float]], list[list[float]]]:
    rng = np.random.default_rng(seed)
    reference = rng.random((n, runs)) < 0.6
    flips = rng.random((n, runs)) < 0.15
    return (1.0 * reference).tolist(), (1.0 * (reference ^ flips)).tolist()


def test_right_or_wrong_items_asked_once_are_judged_by_tango_and_mcnemar() -> None:
    reference, candidate = [[1]] * 60 + [[0]] * 40, [[0]] * 3 + [[1]] * 59 + [[0]] * 38
    evidence = evidence_of(reference, candidate, 1)

    assert (evidence.lost[0], evidence.gained[0]) == (3, 2)
    assert evidence.lower_bound(ALPHA)[0] == tango_lower_bound(3, 2, 100, z_of(ALPHA))
    assert evidence.upper_bound(ALPHA)[0] == -tango_lower_bound(2, 3, 100, z_of(ALPHA))
    assert evidence.p_harm()[0] == mcnemar_harm(3, 2)


@pytest.mark.parametrize("runs", [2, 4])
def test_item_means_over_several_runs_have_the_paired_t_bound_of_statsmodels(runs: int) -> None:
    from statsmodels.stats.weightstats import DescrStatsW  # here, for it loads pandas

    reference, candidate = drawn(300, runs, seed=runs)
    changes = np.mean(candidate, axis=1) - np.mean(reference, axis=1)
    evidence = evidence_of(reference, candidate, runs)

    low, _ = DescrStatsW(changes).tconfint_mean(ALPHA, alternative="larger")
    _, high = DescrStatsW(changes).tconfint_mean(ALPHA, alternative="smaller")
    assert evidence.lower_bound(ALPHA)[0] == pytest.approx(low)
    assert evidence.upper_bound(ALPHA)[0] == pytest.approx(high)


def test_p_of_item_means_is_scipys_one_sided_t_test() -> None:
    reference, candidate = drawn(300, 2, seed=5)
    changes = np.mean(candidate, axis=1) - np.mean(reference, axis=1)
    evidence = evidence_of(reference, candidate, 2)
    harm, gain = evidence.p_harm()[0], evidence.p_gain()[0]
    expected = ttest_1samp(changes, 0, alternative="less").pvalue

    assert min(harm, gain) == pytest.approx(min(expected, 1 - expected))
    assert max(harm, gain) == 1.0


def test_items_that_share_a_passage_have_the_cluster_robust_error_of_statsmodels() -> None:
    from statsmodels.regression.linear_model import OLS  # here, for it loads pandas

    reference, candidate = drawn(120, 1, seed=3)
    clusters = {number: f"page {number // 5}" for number in range(120)}
    changes = np.array(candidate)[:, 0] - np.array(reference)[:, 0]
    groups = [number // 5 for number in range(120)]
    model = OLS(changes, np.ones(120)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    evidence = evidence_of(reference, candidate, 1, clusters)

    assert evidence.clusters[0] == 24
    # statsmodels without its own correction; ours is the usual G / (G - 1).
    assert evidence.error[0] == pytest.approx(float(model.bse[0]) * np.sqrt(24 / 23))
    bound = changes.mean() - student.isf(ALPHA, 23) * evidence.error[0]
    assert evidence.lower_bound(ALPHA)[0] == pytest.approx(bound)


def test_one_cluster_alone_shows_nothing() -> None:
    evidence = evidence_of([[1]] * 50, [[1]] * 50, 1, dict.fromkeys(range(50), "one page"))

    assert (evidence.lower_bound(ALPHA)[0], evidence.p_harm()[0]) == (-1, 1)


def test_scores_between_right_and_wrong_are_judged_by_their_means() -> None:
    evidence = evidence_of([[0.5], [1.0], [0.25]] * 40, [[0.5], [0.75], [0.25]] * 40, 1)

    assert not evidence.is_counts[0]
    assert evidence.difference[0] == pytest.approx(-0.25 / 3)
    assert evidence.p_harm()[0] < 0.001


@pytest.mark.parametrize("n", [50, 100, 900])
def test_without_any_flip_several_runs_bound_no_tighter_than_the_items_allow(n: int) -> None:
    still = [[1, 1, 1, 1]] * n
    bound = evidence_of(still, still, 4).lower_bound(ALPHA)[0]

    assert bound == pytest.approx(float(tango_lower_bound(0, 0, n, z_of(ALPHA))), rel=0.2)
    assert bound < -(z_of(ALPHA) ** 2) / (n + z_of(ALPHA) ** 2)


TABLES = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.tuples(*[st.integers(0, 1)] * 2), min_size=n, max_size=n),
        st.lists(st.tuples(*[st.integers(0, 1)] * 2), min_size=n, max_size=n),
    )
)


@settings(max_examples=30, deadline=None)
@given(TABLES, st.data())
def test_an_answer_that_goes_from_right_to_wrong_never_raises_a_bound(
    tables: tuple[list[tuple[int, int]], list[tuple[int, int]]], data: st.DataObject
) -> None:
    reference, candidate = ([[float(x) for x in runs] for runs in table] for table in tables)
    runs = data.draw(st.sampled_from([1, 2]))
    before = evidence_of(reference, candidate, runs)
    candidate[data.draw(st.integers(0, len(candidate) - 1))][0] = 0.0
    after = evidence_of(reference, candidate, runs)

    assert after.lower_bound(ALPHA)[0] <= before.lower_bound(ALPHA)[0] + 1e-9
    assert after.upper_bound(ALPHA)[0] <= before.upper_bound(ALPHA)[0] + 1e-9
    assert after.p_harm()[0] <= before.p_harm()[0] + 1e-9


@settings(max_examples=12, deadline=None)
@given(TABLES)
def test_exchanged_stacks_have_mirrored_bounds(
    tables: tuple[list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    there, back = evidence_of(*tables, 2), evidence_of(*tables[::-1], 2)

    assert there.lower_bound(ALPHA)[0] == pytest.approx(-back.upper_bound(ALPHA)[0])
    assert there.p_harm()[0] == pytest.approx(back.p_gain()[0])


def test_many_releases_at_once_have_the_bounds_of_each_alone() -> None:
    rng = np.random.default_rng(7)
    lost, gained = rng.integers(0, 30, (2, 50, 3))
    n = np.array([100, 500, 1730])
    z = z_of(ALPHA)
    together = tango_lower_bound(lost, gained, n, z)
    p_values = mcnemar_harm(lost, gained)

    for index in np.ndindex(lost.shape):
        b, c, items = int(lost[index]), int(gained[index]), int(n[index[-1]])
        assert together[index] == tango_lower_bound(b, c, items, z)
        expected = binomtest(c, b + c, 0.5, alternative="less").pvalue if b + c else 1.0
        assert p_values[index] == pytest.approx(expected)
