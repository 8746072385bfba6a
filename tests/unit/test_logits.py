from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from pipeline.accuracy_result import LogitVerdict
from pipeline.canonical import canonical
from pipeline.gate.logits import PASSES, judge_logits
from pipeline.logit_policy import PROFILES, LogitLimits
from pipeline.traces import NO_TOKEN, Lists, PassName, Trace, no_lists
from tests.traces import COUNTS, EVEN, PROFILE, answers, lists, reference, trace

LIMITS = LogitLimits()
SMALL = LogitLimits(p99_positions=1)


def at_distance(nats: float) -> dict[int, float]:
    """A row that is so far from EVEN, found by solving for it."""

    def excess(share: float) -> float:
        return 0.5 * math.log(0.5 / share) + 0.4 * math.log(0.4 / (0.9 - share)) - nats

    share = 0.5 if nats == 0 else float(brentq(excess, 0.5, 0.9 - 1e-9, xtol=1e-15))
    return {7: share, 8: 0.9 - share}


def verdict(candidate: Trace, limits: LogitLimits = LIMITS) -> LogitVerdict:
    return judge_logits(reference(), candidate, limits)


def test_a_stack_that_answers_the_same_passes_at_zero() -> None:
    found = verdict(trace("bfloat16"))

    assert (found.status, found.reasons) == ("pass", ())
    assert [row.kl_max for row in found.comparisons] == [0.0] * 4
    assert found.sentence == (
        "pass: bfloat16 gives the next-token probabilities of float32 (2 texts, 8 positions: "
        "mean KL 0.0e+00, floor 8.0e-04; 0 other first tokens)"
    )


@pytest.mark.parametrize(
    ("nats", "status"),
    [(1.5e-3, "pass"), (1.7e-3, "warn"), (4.9e-3, "warn"), (5.1e-3, "fail")],
)
def test_the_mean_is_judged_against_the_least_floor(nats: float, status: str) -> None:
    found = verdict(trace("bfloat16", at_distance(nats)))

    assert (found.status, found.floor.mean) == (status, 8e-4)
    assert found.comparisons[0].kl_mean == pytest.approx(nats, rel=1e-3)


@pytest.mark.parametrize(
    ("nats", "status"), [(3.9e-3, "pass"), (4.1e-3, "warn"), (9.9e-3, "warn"), (1.01e-2, "fail")]
)
def test_a_wider_measured_floor_widens_the_limits(nats: float, status: str) -> None:
    noisy = (answers("prefill alone", at_distance(2e-3)),) * 2

    found = judge_logits(reference(prefill_alone=noisy), alike_alone(at_distance(nats)), LIMITS)

    assert found.status == status
    assert found.floor.mean == pytest.approx(2e-3, rel=1e-3)


def alike_alone(row: dict[int, float]) -> Trace:
    """Differs from the reference where prompts go together; alone it is as the noisy reference."""
    return trace("bfloat16", row, prefill_alone=(answers("prefill alone", at_distance(2e-3)),) * 2)


def test_a_few_wide_positions_are_found_by_the_percentile() -> None:
    narrow, wide = at_distance(0), at_distance(0.06)
    rows = [wide, *[narrow] * 19]
    known = lists([EVEN] * 20)
    ours = reference(prefill_together=(known, known), prefill_alone=(known, known))
    theirs = trace("bfloat16", prefill_together=(lists(rows), known), prefill_alone=(known, known))

    found = judge_logits(ours, theirs, SMALL)

    assert found.status == "warn"
    assert found.reasons == ("warn: p99 KL 3.7e-02 in prefill at batch 8 is 6.1 times the floor",)
    assert judge_logits(ours, theirs, LIMITS).status == "pass", "too few positions for a percentile"


@pytest.mark.parametrize(("margin", "status"), [(0.29, "pass"), (0.31, "warn"), (1.01, "fail")])
def test_another_first_token_is_judged_by_the_margin_of_the_reference(
    margin: float, status: str
) -> None:
    """The lists are disjoint, so that the divergence itself says nothing."""
    first = {7: 1e-3, 8: 1e-3 / math.exp(margin)}
    ours = reference(first)
    theirs = trace("bfloat16", {3: 1e-3, 4: 1e-3 / math.exp(margin)})

    found = judge_logits(ours, theirs, LIMITS)

    assert found.status == status
    assert found.comparisons[0].widest_margin == pytest.approx(margin, rel=1e-4)


def test_garbage_only_where_prompts_go_together_fails_and_says_where() -> None:
    wrong = (answers("decode together", {3: 0.9, 4: 0.05}),) * 2

    found = verdict(trace("flagos", decode_together=wrong))

    assert found.sentence == (
        "fail: flagos does not compute what float32 computes: "
        "mean KL 1.8e+00 in decode at batch 8 is 2197.2 times the floor"
    )
    assert [row.mismatches for row in found.comparisons] == [0, 0, 2, 0]


@pytest.mark.parametrize("name", PASSES)
def test_a_request_that_failed_fails_the_candidate(name: PassName) -> None:
    wrong = (no_lists("POST /v1/completions answered HTTP 500", 2),) * COUNTS[name]

    found = verdict(trace("flagos", **{name.replace(" ", "_"): wrong}))

    kind, _, together = name.partition(" ")
    assert found.sentence == (
        f"fail: flagos does not compute what float32 computes: {COUNTS[name]} failed requests "
        f"(POST /v1/completions answered HTTP 500) in {kind} at batch "
        f"{8 if together == 'together' else 1}"
    )


def test_a_candidate_that_is_as_good_elsewhere_still_fails_on_one_nan() -> None:
    bad = lists([{7: 0.5, 8: math.nan}, EVEN, EVEN, EVEN])

    found = verdict(trace("flagos", prefill_alone=(bad, answers("prefill alone", EVEN))))

    assert found.sentence == (
        "fail: flagos does not compute what float32 computes: 1 NaN in prefill at batch 1"
    )


def test_a_reference_that_fails_cannot_judge() -> None:
    failed = (no_lists("timed out", 2),) * 2

    found = judge_logits(reference(prefill_alone=failed), trace("flagos"), LIMITS)

    assert found.sentence == (
        "invalid: log-probabilities cannot be compared: float32 itself is unsound in "
        "prefill together: 2 failed requests (timed out)"
    )


def test_a_reference_that_contradicts_itself_cannot_judge() -> None:
    noisy = (answers("prefill alone", at_distance(6e-3)),) * 2

    found = judge_logits(reference(prefill_alone=noisy), trace("flagos"), LIMITS)

    assert found.status == "invalid"
    assert found.reasons == (
        "the floor is no noise: mean KL 6.0e-03 between float32 and float32 in another batch, "
        "at most 5.0e-03 is believed",
    )


def test_a_legitimate_stack_widens_the_floor_by_what_it_measures() -> None:
    engine = trace("engine", at_distance(1.2e-3))

    without = judge_logits(reference(), trace("flagos", at_distance(2e-3)), LIMITS)
    found = judge_logits(reference(), trace("flagos", at_distance(2e-3)), LIMITS, [engine])
    too_far = judge_logits(reference(), trace("flagos", at_distance(6.1e-3)), LIMITS, [engine])

    assert (without.status, found.status, too_far.status) == ("warn", "pass", "fail")
    assert found.floor.mean == pytest.approx(1.2e-3, rel=1e-3)
    assert list(found.floor.legitimate) == ["engine"]


def test_a_legitimate_stack_that_is_far_away_is_not_believed() -> None:
    engine = trace("engine", at_distance(6e-3))

    found = judge_logits(reference(), trace("flagos"), LIMITS, [engine])

    assert found.reasons == (
        "the floor is no noise: mean KL 6.0e-03 between float32 and float32 in another batch, "
        "engine, at most 5.0e-03 is believed",
    )


def test_a_candidate_cannot_define_its_own_floor() -> None:
    candidate = trace("flagos", at_distance(2e-3))

    found = judge_logits(reference(), candidate, LIMITS, [candidate])

    assert found.reasons == ("flagos cannot define the floor it is judged by",)


def test_a_legitimate_stack_with_a_nan_is_not_believed() -> None:
    bad = lists([{7: 0.5, 8: math.nan}, EVEN, EVEN, EVEN])
    engine = trace("engine", prefill_together=(bad, answers("prefill together", EVEN)))

    found = judge_logits(reference(), trace("flagos"), LIMITS, [engine])

    assert found.reasons == ("engine is unsound in prefill together: 1 NaN",)


@pytest.mark.parametrize(("margin", "status"), [(0.35, "pass"), (0.45, "warn"), (1.1, "fail")])
def test_the_margin_is_judged_against_that_of_a_legitimate_stack(
    margin: float, status: str
) -> None:
    """The reference is nearly sure at one text; a legitimate stack is wrong where it is not."""
    sure, unsure = 1e-3 / math.exp(margin), 1e-3 / math.exp(0.2)
    rows = [{7: 1e-3, 8: sure}, {7: 1e-3, 8: unsure}, {7: 1e-3, 8: unsure}, {7: 1e-3, 8: unsure}]
    other = [{3: 1e-3, 4: sure}, *rows[1:]]
    engine = [rows[0], {3: 1e-3, 4: unsure}, *rows[2:]]
    ours = reference(prefill_together=(lists(rows),) * 2, prefill_alone=(lists(rows),) * 2)

    found = judge_logits(
        ours,
        trace("flagos", prefill_together=(lists(other),) * 2, prefill_alone=(lists(rows),) * 2),
        LIMITS,
        [trace("engine", prefill_together=(lists(engine),) * 2, prefill_alone=(lists(rows),) * 2)],
    )

    assert (found.status, round(found.floor.margin, 4)) == (status, 0.2)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (
            replace(trace("flagos"), texts=("one", "other")),
            "the stacks have other token ids for 1 of 2 texts",
        ),
        (
            trace("flagos", decode_together=()),
            "decode together holds 0 texts, the profile asks for 2",
        ),
    ],
)
def test_what_was_asked_otherwise_is_invalid(candidate: Trace, reason: str) -> None:
    found = verdict(candidate)

    assert (found.status, found.reasons) == ("invalid", (reason,))


def test_too_few_positions_are_invalid() -> None:
    ours = replace(reference(), profile=PROFILE.model_copy(update={"min_positions": 9}))

    found = judge_logits(ours, trace("flagos"), LIMITS)

    assert found.reasons == ("8 positions were scored, the profile asks for 9",)


def test_the_release_profile_asks_enough_for_a_release() -> None:
    release, quick = PROFILES["release"], PROFILES["quick"]

    assert release.prompts >= 64
    assert release.min_positions >= 5000
    assert release.answer_tokens >= 64
    assert min(release.batch, release.answered) >= 32
    assert quick.batch > 4, "some faults show only in larger batches"


VALUES = st.one_of(
    st.floats(-30, 0, width=32),
    st.floats(width=32),  # NaN and infinities, too
    st.sampled_from([-9999.0, 0.0]),
)


@st.composite
def any_lists(draw: Any) -> Lists:
    positions, k = draw(st.integers(0, 5)), draw(st.integers(2, 3))
    if draw(st.booleans()) and not positions:
        return no_lists("timed out", k)
    tokens = [
        draw(st.lists(st.integers(NO_TOKEN, 9), min_size=k, max_size=k, unique=True))
        for _ in range(positions)
    ]
    values = draw(st.lists(VALUES, min_size=positions * (k + 1), max_size=positions * (k + 1)))
    numbers = np.array(values, np.float32).reshape(positions, k + 1)
    generated = draw(st.lists(st.integers(0, 9), min_size=positions, max_size=positions))
    return Lists(
        tokens=np.array(tokens, np.int32).reshape(positions, k),
        logprobs=numbers[:, :k],
        text_logprobs=numbers[:, k],
        generated=np.array(generated if draw(st.booleans()) else [], np.int32),
    )


@st.composite
def any_trace(draw: Any, stack: str) -> Trace:
    passes = {
        name: tuple(draw(st.lists(any_lists(), max_size=2)))
        for name in draw(st.sets(st.sampled_from(PASSES)))
    }
    return Trace(stack=stack, texts=("one", "two"), passes=passes)


@settings(max_examples=40, deadline=None)  # a loaded machine is no fault
@given(any_trace("float32"), any_trace("flagos"))
def test_no_trace_crashes_the_judge_and_every_verdict_can_be_stored(
    ours: Trace, theirs: Trace
) -> None:
    found = judge_logits(replace(reference(), trace=ours), theirs, LIMITS)

    canonical(found.model_dump(mode="json"))
    assert found.sentence.startswith(found.status)


@settings(max_examples=40, deadline=None)  # a loaded machine is no fault
@given(any_trace("float32"))
def test_a_trace_never_differs_from_itself(ours: Trace) -> None:
    found = judge_logits(replace(reference(), trace=ours), ours, LIMITS)

    assert [row.kl_max or 0 for row in found.comparisons] == [0] * 4
    assert found.status in {"pass", "invalid"} or any(
        row.candidate_faults.total for row in found.comparisons
    )


@settings(max_examples=40, deadline=None)  # a loaded machine is no fault
@given(
    st.sampled_from(PASSES),
    st.integers(0, 3),
    st.integers(0, 1),
    st.sampled_from([math.nan, math.inf, -math.inf, -9999.0]),
)
def test_one_value_that_is_no_number_always_fails(
    name: PassName, position: int, place: int, value: float
) -> None:
    good = answers(name, EVEN)
    logprobs = good.logprobs.copy()
    logprobs[position, place] = value
    bad = replace(good, logprobs=logprobs)

    found = verdict(
        trace("flagos", **{name.replace(" ", "_"): (bad, *(good,) * (COUNTS[name] - 1))})
    )

    assert found.status == "fail"
