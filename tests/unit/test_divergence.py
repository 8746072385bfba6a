from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, rel_entr
from scipy.stats import entropy

from pipeline.accuracy_result import ListFaults
from pipeline.gate.divergence import compare, tail_kl
from pipeline.traces import NO_TOKEN, Lists, no_lists
from tests.traces import lists

Row = npt.NDArray[np.float64]


def top(logprobs: Row, k: int) -> Lists:
    ranked = np.argsort(-logprobs)[:k]
    return Lists(
        tokens=ranked[None].astype(np.int32),
        logprobs=logprobs[ranked][None].astype(np.float32),
        text_logprobs=logprobs[ranked[:1]].astype(np.float32),
        generated=np.zeros(0, np.int32),
    )


def kl_of(reference: Lists, candidate: Lists) -> float:
    return float(tail_kl(reference, candidate, np.arange(1))[0][0])


def distributions(seed: int, size: int, distance: float) -> tuple[Row, Row]:
    generator = np.random.default_rng(seed)
    logits = 3 * generator.standard_normal(size)
    moved = logits + distance * generator.standard_normal(size)
    return log_softmax(logits), log_softmax(moved)


def test_kl_is_over_the_shared_tokens_and_one_bucket_for_the_rest() -> None:
    reference, candidate = lists([{1: 0.5, 2: 0.3}]), lists([{1: 0.4, 3: 0.38}])

    kl, missing = tail_kl(reference, candidate, np.arange(1))

    by_hand = 0.5 * math.log(0.5 / 0.4) + 0.5 * math.log(0.5 / 0.6)
    assert kl.tolist() == [pytest.approx(by_hand, rel=1e-6)]
    assert missing.tolist() == [0.5]


def test_what_the_candidate_does_not_list_is_at_most_its_least_listed_probability() -> None:
    """Two lists without a common token would else be equal: everything is in the bucket."""
    kl = kl_of(lists([{7: 0.5, 8: 0.4}]), lists([{3: 0.9, 4: 0.05}]))

    assert kl == pytest.approx(0.9 * math.log(0.9 / 0.1) + 0.1 * math.log(0.1 / 0.9), rel=1e-5)


def test_an_empty_tail_is_taken_as_the_least_one() -> None:
    kl = kl_of(lists([{1: 0.5, 2: 0.5}]), lists([{1: 0.5, 2: 0.25}]))

    by_hand = 0.5 * math.log(0.5 / 0.25) + 1e-12 * math.log(1e-12 / 0.25)
    assert kl == pytest.approx(by_hand, rel=1e-6)


def test_kl_is_the_least_that_the_two_lists_allow_found_by_scipy() -> None:
    """What the candidate gives to the tokens missing in its list is searched for, numerically."""
    for seed in range(20):
        p, q = distributions(seed, 500, 0.5 + seed / 10)
        ours, theirs = top(p, 20), top(q, 20)
        listed, other = set(ours.tokens[0].tolist()), set(theirs.tokens[0].tolist())
        shared, lost = sorted(listed & other), sorted(listed - other)
        p_shared, q_shared = np.exp(p[shared]), np.exp(q[shared])
        p_lost, q_rest = np.exp(p[lost]).sum(), 1 - q_shared.sum()
        most = min(len(lost) * float(np.exp(q[sorted(other)].min())), q_rest)

        def least(given: float, parts: tuple[Row, Row, float, float]) -> float:
            p_shared, q_shared, p_lost, q_rest = parts
            ours = np.array([*p_shared, p_lost, 1 - p_shared.sum() - p_lost])
            return float(entropy(ours, np.array([*q_shared, given, q_rest - given])))

        parts = (p_shared, q_shared, float(p_lost), float(q_rest))
        found = minimize_scalar(
            least, bounds=(0, most), args=(parts,), method="bounded", options={"xatol": 1e-12}
        ).fun
        assert kl_of(ours, theirs) == pytest.approx(found, rel=1e-4)


def test_kl_is_the_full_one_where_the_lists_hold_the_whole_vocabulary() -> None:
    p, q = distributions(3, 40, 0.5)

    full = float(rel_entr(np.exp(p), np.exp(q)).sum())
    assert kl_of(top(p, 40), top(q, 40)) == pytest.approx(full, rel=1e-4)


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.floats(0, 3))
def test_kl_is_a_lower_bound_of_the_full_one(seed: int, k: int, distance: float) -> None:
    p, q = distributions(seed, 60, distance)

    full = float(rel_entr(np.exp(p), np.exp(q)).sum())
    assert 0 <= kl_of(top(p, k), top(q, k)) <= full + 1e-5


def test_a_pass_is_summed_up() -> None:
    reference = lists([{1: 0.5, 2: 0.3}, {1: 0.6, 2: 0.2}, {5: 0.9, 6: 0.05}, {5: 0.9, 6: 0.05}])
    candidate = lists([{2: 0.4, 1: 0.38}, {2: 0.5, 1: 0.3}, {5: 0.9, 6: 0.05}, {5: 0.9, 8: 0.04}])

    row = compare("prefill together", [reference], [candidate])

    assert (row.positions, row.mismatches, row.top1_agreement) == (4, 2, 0.5)
    assert row.widest_margin == pytest.approx(math.log(0.6 / 0.2), rel=1e-6)
    assert row.missing_share == 0.125
    assert row.kl_max == pytest.approx(
        0.6 * math.log(0.6 / 0.3) + 0.2 * math.log(0.2 / 0.5), rel=1e-5
    )
    assert row.reference_perplexity == pytest.approx((0.5 * 0.6 * 0.9 * 0.9) ** -0.25, rel=1e-6)
    assert row.candidate_perplexity == pytest.approx((0.4 * 0.5 * 0.9 * 0.9) ** -0.25, rel=1e-6)
    assert (row.diverged, row.first_divergence) == (None, None)
    assert row.candidate_faults == ListFaults()


def test_decoding_is_compared_up_to_and_with_the_first_other_token() -> None:
    even, near, far = {1: 0.5, 2: 0.4}, {2: 0.46, 1: 0.44}, {9: 0.9, 8: 0.01}
    reference = lists([even, even, even, even], [1, 1, 1, 1])
    candidate = lists([even, near, far, far], [1, 2, 9, 9])

    row = compare("decode alone", [reference, reference], [candidate, reference])

    assert (row.positions, row.mismatches) == (2 + 4, 1)
    assert (row.diverged, row.first_divergence) == (1, 1)
    assert row.widest_margin == pytest.approx(math.log(0.5 / 0.4), rel=1e-5)


def test_a_token_that_is_not_its_lists_first_is_a_mismatch() -> None:
    even = {1: 0.8, 2: 0.1}

    row = compare("decode alone", [lists([even], [1])], [lists([even], [2])])

    assert (row.mismatches, row.diverged, row.kl_mean) == (1, 1, 0.0)
    assert row.widest_margin == pytest.approx(math.log(8), rel=1e-6)


def with_value(value: float) -> Lists:
    good = lists([{1: 0.5, 2: 0.3}] * 3)
    logprobs = good.logprobs.copy()
    logprobs[1, 1] = value
    return Lists(
        tokens=good.tokens,
        logprobs=logprobs,
        text_logprobs=good.text_logprobs,
        generated=good.generated,
    )


@pytest.mark.parametrize(
    ("value", "faults"),
    [
        (math.nan, ListFaults(nan=1)),
        (-math.inf, ListFaults(infinite=1)),
        (math.inf, ListFaults(infinite=1)),
        (-9999.0, ListFaults(sentinel=1)),
        (0.5, ListFaults(impossible=1)),
        (-0.2, ListFaults(impossible=1)),  # .82 and .5 are more than 1
    ],
)
def test_a_value_that_is_no_log_probability_is_counted_and_left_out(
    value: float, faults: ListFaults
) -> None:
    row = compare("prefill together", [with_value(-2.0)], [with_value(value)])

    assert row.candidate_faults == faults
    assert (row.positions, row.kl_mean) == (2, 0.0)


def test_a_list_that_is_too_short_is_impossible() -> None:
    short = lists([{1: 0.5, NO_TOKEN: 0.3}])

    row = compare("prefill together", [lists([{1: 0.5, 2: 0.3}])], [short])

    assert row.candidate_faults == ListFaults(impossible=1)
    assert (row.positions, row.kl_mean, row.top1_agreement) == (0, None, None)


def test_a_failed_request_and_an_answer_of_another_length_are_failures() -> None:
    good = lists([{1: 0.5, 2: 0.3}] * 3)
    failed = no_lists("POST /v1/completions answered HTTP 500", 2)

    row = compare("prefill together", [good, good, good], [failed, lists([{1: 0.5, 2: 0.3}]), good])

    assert row.candidate_faults == ListFaults(
        failed=2, first_error="POST /v1/completions answered HTTP 500"
    )
    assert (row.texts, row.positions) == (3, 3)


def test_a_failure_of_the_reference_is_not_the_candidates() -> None:
    good = lists([{1: 0.5, 2: 0.3}])

    row = compare("prefill together", [no_lists("timed out", 2)], [good])

    assert row.reference_faults == ListFaults(failed=1, first_error="timed out")
    assert row.candidate_faults == ListFaults()
