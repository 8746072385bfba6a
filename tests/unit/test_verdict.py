from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.accuracy_result import ItemRow, Troubles, Verdict
from pipeline.canonical import sha256_bytes
from pipeline.gate.verdict import judge
from pipeline.policy import Gate

MARGIN = 0.08


def row(benchmark: str, item: str, stack: str, *, right: bool, error: str = "") -> ItemRow:
    return ItemRow(
        benchmark=benchmark,
        item=item,
        cluster=item,
        stack=stack,
        repeat=0,
        seed=0,
        score=1 if right else 0,
        prompt_sha256=sha256_bytes(f"{benchmark} {item}".encode()),
        answer="1" if right else "0",
        finish_reason="" if error else "stop",
        tokens=1,
        error=error,
        response_sha256=sha256_bytes(b"reply"),
    )


def rows_of(
    benchmark: str, *, both: int = 0, lost: int = 0, gained: int = 0, neither: int = 0
) -> tuple[ItemRow, ...]:
    marks = [(True, True)] * both + [(True, False)] * lost
    marks += [(False, True)] * gained + [(False, False)] * neither
    return tuple(
        row(benchmark, f"{benchmark}-{number:04}", stack, right=right)
        for number, pair in enumerate(marks)
        for stack, right in zip(("float32", "bfloat16"), pair, strict=True)
    )


def verdict_of(
    rows: Sequence[ItemRow],
    *,
    margins: Mapping[str, float] | None = None,
    chance: float = 0.25,
    reference: str = "float32",
    candidate: str = "bfloat16",
    alpha: float = 0.05,
    **policy: object,
) -> Verdict:
    names = dict.fromkeys(one.benchmark for one in rows)
    margins = dict.fromkeys(names, MARGIN) if margins is None else margins
    gate = Gate(
        alpha=alpha,
        margin=MARGIN,
        margins=margins,
        power_margins=1,
        looks=(1,),
        concurrency=1,
        seed=0,
    )
    return judge(
        rows,
        reference=reference,
        candidate=candidate,
        gate=gate.model_copy(update=policy),
        chance=dict.fromkeys(margins, chance),
    )


def with_errors(rows: Sequence[ItemRow], stack: str, count: int) -> tuple[ItemRow, ...]:
    failing = {(one.benchmark, one.item) for one in [r for r in rows if r.stack == stack][:count]}
    return tuple(
        one.model_copy(update={"error": "POST /tokenize answered HTTP 500"})
        if one.stack == stack and (one.benchmark, one.item) in failing
        else one
        for one in rows
    )


GOOD = (
    *rows_of("hellaswag", both=40, lost=1, gained=2, neither=57),
    *rows_of("truthfulqa", both=50, lost=2, gained=1, neither=47),
    *rows_of("gsm8k", both=2, neither=98),
)


def test_a_pass_says_how_large_a_loss_is_ruled_out_and_what_has_no_power() -> None:
    verdict = verdict_of(GOOD)

    assert verdict.sentence == (
        "pass: bfloat16 is not worse than float32 by more than 8.0 points on any of 2 benchmarks "
        "(200 items; widest loss bound -5.0 on truthfulqa); no power: gsm8k"
    )
    assert (verdict.status, verdict.items, verdict.faults) == ("pass", 300, ())
    assert [one.status for one in verdict.benchmarks] == ["pass", "pass", "inconclusive"]


def test_a_benchmark_keeps_all_its_numbers() -> None:
    one = verdict_of(rows_of("hellaswag", both=40, lost=3, gained=1, neither=56)).benchmarks[0]

    assert (one.n, one.lost, one.gained, one.margin, one.chance) == (100, 3, 1, MARGIN, 0.25)
    assert (one.reference_score, one.candidate_score) == (0.43, 0.41)
    assert (one.difference, one.flip_share) == (-0.02, 0.04)
    assert one.p_harm == 0.3125
    assert one.lower_bound < one.difference < one.upper_bound
    assert (one.has_power, one.errors_reference, one.errors_candidate) == (True, 0, 0)


def test_harm_on_one_benchmark_fails_the_candidate() -> None:
    verdict = verdict_of((*GOOD, *rows_of("arc", both=40, lost=12, gained=1, neither=47)))

    assert verdict.sentence == (
        "fail: bfloat16 is worse than float32 (arc: 41.0 for 52.0, 12 items lost and 1 gained of "
        "100, p = 0.0017); no power: gsm8k"
    )
    assert verdict.benchmarks[3].status == "fail"


def test_holm_forgives_what_one_benchmark_of_three_would_show_by_chance() -> None:
    alone = rows_of("hellaswag", both=500, lost=5, neither=495)

    assert verdict_of(alone).status == "fail"
    assert verdict_of((*alone, *GOOD[200:])).benchmarks[0].status == "pass"


def test_a_loss_that_is_not_ruled_out_is_inconclusive() -> None:
    verdict = verdict_of(rows_of("hellaswag", both=50, lost=9, gained=4, neither=37))

    assert verdict.sentence == (
        "inconclusive: bfloat16 may be worse than float32 by more than the margin (hellaswag: loss "
        "bound -11.5, margin 8.0, 9 items lost and 4 gained of 100); more items would decide"
    )


def test_a_bound_at_the_margin_itself_does_not_pass() -> None:
    rows = rows_of("hellaswag", both=50, lost=3, neither=47)
    bound = verdict_of(rows).benchmarks[0].lower_bound

    assert verdict_of(rows, margins={"hellaswag": -bound}).status == "inconclusive"


def test_a_reference_at_chance_everywhere_is_inconclusive() -> None:
    verdict = verdict_of(rows_of("hellaswag", both=30, neither=70))

    assert verdict.sentence == (
        "inconclusive: float32 scores too near to guessing for a loss to show on any benchmark "
        "(hellaswag: 30.0, guessing 25.0, margin 8.0); no power: hellaswag"
    )


def test_a_failed_item_scores_0_and_stays_in_the_pairing() -> None:
    rows = with_errors(rows_of("hellaswag", both=60, neither=40), "bfloat16", 3)
    verdict = verdict_of(rows)

    assert (verdict.benchmarks[0].n, verdict.benchmarks[0].lost) == (100, 3)
    assert verdict.benchmarks[0].errors_candidate == 3
    assert verdict.sentence.endswith("; failed requests: 0 of float32, 3 of bfloat16")


def test_a_stack_that_answered_nothing_is_invalid() -> None:
    verdict = verdict_of(with_errors(GOOD, "bfloat16", 300))

    assert verdict.sentence == (
        "invalid: the stacks cannot be compared: bfloat16 answered none of 300 items; the first "
        "error: POST /tokenize answered HTTP 500"
    )
    assert verdict.benchmarks == ()


def test_a_candidate_that_leaves_a_benchmark_unanswered_fails_even_where_there_is_nothing_to_lose() -> (
    None
):
    silent = with_errors(rows_of("gsm8k", neither=100), "bfloat16", 100)

    assert verdict_of((*GOOD[:400], *silent)).sentence.startswith(
        "fail: bfloat16 answers in another way (gsm8k: 100 answers of bfloat16 failed, were cut off "
        "or could not be read, 0 of float32)"
    )


def test_a_reference_that_leaves_requests_unanswered_is_no_yardstick() -> None:
    silent = with_errors(rows_of("gsm8k", both=2, neither=98), "float32", 2)

    assert faults_of((*GOOD[:400], *silent)) == (
        "gsm8k: the reference float32 left 2 of 100 requests unanswered",
    )


def test_prompts_of_failed_items_are_not_compared() -> None:
    rows = with_errors(rows_of("hellaswag", both=60, neither=40), "bfloat16", 1)
    rows = (rows[0], rows[1].model_copy(update={"prompt_sha256": "other"}), *rows[2:])

    assert verdict_of(rows).status == "pass"


def faults_of(rows: Sequence[ItemRow], **keywords: object) -> tuple[str, ...]:
    verdict = verdict_of(rows, **keywords)  # type: ignore[arg-type]
    assert verdict.status == "invalid"
    assert verdict.benchmarks == ()
    return verdict.faults


def test_different_prompts_are_invalid() -> None:
    other = GOOD[0].model_copy(update={"prompt_sha256": "other"})

    assert faults_of((other, *GOOD[1:])) == (
        "hellaswag: the stacks got different prompts for 1 item (hellaswag-0000)",
    )


def test_missing_items_score_0_stay_in_the_pairing_and_are_counted() -> None:
    there = ("hellaswag-0002", "hellaswag-0003")
    rows = tuple(one for one in GOOD if one.stack == "float32" or one.item not in there)
    before, after = verdict_of(GOOD).benchmarks[0], verdict_of(rows).benchmarks[0]

    assert (after.n, after.lost) == (100, before.lost + 2)
    assert after.candidate_score == pytest.approx(before.candidate_score - 0.02)
    assert (after.troubles_candidate, after.errors_candidate) == (Troubles(missing=2), 2)


def test_a_missing_item_of_the_reference_counts_against_the_candidate() -> None:
    before = verdict_of(GOOD).benchmarks[0]
    rows = tuple(one for one in GOOD if one.stack == "bfloat16" or one.item != "hellaswag-0099")
    after = verdict_of(rows).benchmarks[0]

    assert (after.n, after.lost, after.errors_reference) == (100, before.lost + 1, 1)
    assert after.reference_score == before.reference_score


def test_stacks_with_items_of_their_own_are_invalid() -> None:
    alone = {"float32": "hellaswag-0001", "bfloat16": "hellaswag-0002"}
    rows = tuple(one for one in GOOD if alone[one.stack] != one.item)

    assert faults_of(rows) == (
        "hellaswag: the stacks got different items: bfloat16 lacks 1 item (hellaswag-0002), "
        "float32 lacks 1 item (hellaswag-0001)",
    )


def test_a_stack_without_any_row_of_a_benchmark_is_invalid() -> None:
    rows = tuple(one for one in GOOD if one.stack == "float32" or one.benchmark != "gsm8k")

    assert faults_of(rows) == ("gsm8k: bfloat16 has no rows",)


def test_an_item_answered_twice_in_a_run_is_invalid() -> None:
    assert faults_of((*GOOD, GOOD[0])) == (
        "hellaswag: float32 answered hellaswag-0000 2 times in run 0",
    )


def test_other_seeds_and_clusters_are_invalid() -> None:
    other = GOOD[0].model_copy(update={"seed": 1, "cluster": "page 3"})

    assert faults_of((other, *GOOD[1:])) == (
        "hellaswag: the stacks got different seeds for 1 item (hellaswag-0000)",
        "hellaswag: the stacks got different clusters for 1 item (hellaswag-0000)",
    )


def test_a_run_that_was_left_out_is_invalid() -> None:
    later = tuple(one.model_copy(update={"repeat": 2}) for one in GOOD)

    assert faults_of((*GOOD, *later))[0] == "hellaswag: runs are numbered 0, 2, expected 0, 1, 2 …"


def test_a_benchmark_without_rows_is_invalid() -> None:
    margins = {"hellaswag": MARGIN, "truthfulqa": MARGIN, "gsm8k": MARGIN, "mmmu": MARGIN}

    assert faults_of(GOOD, margins=margins) == ("mmmu: no stack has rows",)


def test_a_benchmark_that_was_not_asked_for_is_invalid() -> None:
    assert faults_of(GOOD[:400], margins={"hellaswag": MARGIN}) == (
        "truthfulqa: has rows but was not asked for",
    )


def test_a_score_beyond_1_is_invalid() -> None:
    more = GOOD[0].model_copy(update={"score": 1.5})

    assert faults_of((more, *GOOD[1:])) == (
        "hellaswag: float32 scored 1.5 on hellaswag-0000, expected 0 to 1",
    )


def test_a_policy_that_cannot_decide_is_invalid() -> None:
    assert faults_of(GOOD, candidate="float32")[0] == (
        "reference and candidate are the same stack, float32"
    )
    assert faults_of((), margins={}) == ("no benchmark was asked for",)
    assert faults_of(GOOD, alpha=0.0) == ("alpha is 0.0, expected a number above 0 and below 0.5",)
    assert faults_of(GOOD[:200], margins={"hellaswag": 0.0}) == (
        "hellaswag: the margin is 0.0, expected a number above 0 and at most 1",
    )


def test_rows_of_other_stacks_are_left_out() -> None:
    other = tuple(one.model_copy(update={"stack": "plugin"}) for one in GOOD[:50])

    assert verdict_of((*GOOD, *other)) == verdict_of(GOOD)


def test_margins_of_several_sizes_are_said_as_a_range() -> None:
    rows = (*rows_of("a", both=60, neither=40), *rows_of("b", both=60, neither=40))

    assert "by more than 5.0 to 8.0 points on" in (
        verdict_of(rows, margins={"a": 0.05, "b": 0.08}).sentence
    )


COUNTS = st.fixed_dictionaries(
    {
        "both": st.integers(0, 60),
        "lost": st.integers(0, 12),
        "gained": st.integers(0, 12),
        "neither": st.integers(0, 60),
    }
)
TABLES = st.lists(COUNTS.filter(lambda counts: sum(counts.values()) > 0), min_size=1, max_size=3)


def rows_of_tables(tables: Sequence[Mapping[str, int]]) -> tuple[ItemRow, ...]:
    return tuple(
        one for number, counts in enumerate(tables) for one in rows_of(f"b{number}", **counts)
    )


@settings(max_examples=20, deadline=None)
@given(TABLES)
def test_swapping_the_stacks_mirrors_every_number(tables: list[dict[str, int]]) -> None:
    rows = rows_of_tables(tables)
    there = verdict_of(rows).benchmarks
    back = verdict_of(rows, reference="bfloat16", candidate="float32").benchmarks

    for one, other in zip(there, back, strict=True):
        assert (one.lost, one.gained) == (other.gained, other.lost)
        assert (one.reference_score, one.candidate_score) == (
            other.candidate_score,
            other.reference_score,
        )
        assert one.difference == -other.difference
        assert (one.lower_bound, one.upper_bound) == (-other.upper_bound, -other.lower_bound)
        assert not one.status == other.status == "fail"


GOODNESS = {"fail": 0, "invalid": 1, "inconclusive": 1, "pass": 2}


@settings(max_examples=20, deadline=None)
@given(TABLES, st.data())
def test_missing_rows_never_help(tables: list[dict[str, int]], data: st.DataObject) -> None:
    rows = rows_of_tables(tables)
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    stack = data.draw(st.sampled_from(["float32", "bfloat16"]))
    left = [one for at, one in enumerate(rows) if at not in gone or one.stack != stack]

    assert_no_better(verdict_of(left), verdict_of(rows))


def assert_no_better(after: Verdict, before: Verdict) -> None:
    """A verdict may become invalid, which promotes nothing, and otherwise only worse."""
    assert after.status == "invalid" or GOODNESS[after.status] <= GOODNESS[before.status]


@settings(max_examples=20, deadline=None)
@given(TABLES, st.data())
def test_a_failed_request_of_the_candidate_never_helps(
    tables: list[dict[str, int]], data: st.DataObject
) -> None:
    rows = rows_of_tables(tables)
    failed = with_errors(rows, "bfloat16", data.draw(st.integers(1, len(rows))))

    assert_no_better(verdict_of(failed), verdict_of(rows))


@settings(max_examples=20, deadline=None)
@given(TABLES, st.integers(1, 200), st.booleans())
def test_identical_extra_items_never_turn_a_pass_into_a_fail(
    tables: list[dict[str, int]], extra: int, right: bool
) -> None:
    rows = rows_of_tables(tables)
    same = tuple(
        row("b0", f"extra-{number}", stack, right=right)
        for number in range(extra)
        for stack in ("float32", "bfloat16")
    )
    before, after = verdict_of(rows), verdict_of((*rows, *same))

    assert (before.status == "fail") == (after.status == "fail")
    # More items may let a benchmark decide that could not before, and it may then ask for more.
    if before.status == "pass" and right and deciding(before) == deciding(after):
        assert after.status == "pass"


def deciding(verdict: Verdict) -> set[str]:
    return {row.benchmark for row in verdict.benchmarks if row.has_power}


ANY_ROW = st.builds(
    ItemRow,
    benchmark=st.sampled_from(["a", "b"]),
    item=st.sampled_from(["1", "2", "3"]),
    cluster=st.sampled_from(["", "page 1", "page 2"]),
    stack=st.sampled_from(["float32", "bfloat16", "plugin"]),
    repeat=st.sampled_from([0, 0, 1]),
    seed=st.just(0),
    score=st.sampled_from([0.0, 1.0, 0.5, 1.5]),
    prompt_sha256=st.sampled_from(["x", "y"]),
    answer=st.just(""),
    finish_reason=st.just(""),
    tokens=st.just(0),
    error=st.sampled_from(["", "no answer"]),
    response_sha256=st.just(""),
)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(ANY_ROW, max_size=14),
    st.sampled_from([{}, {"a": 0.08}, {"a": 0.0}, {"a": 0.5, "b": 1.0}]),
    st.sampled_from([0.0, 0.05, 0.4, 1.0]),
    st.sampled_from([(1,), (1, 2), (2, 4)]),
)
def test_no_rows_crash_the_judge(
    rows: list[ItemRow], margins: dict[str, float], alpha: float, looks: tuple[int, ...]
) -> None:
    verdict = verdict_of(rows, margins=margins, alpha=alpha, looks=looks, pooled_margin=0.5)

    assert (verdict.status == "invalid") == bool(verdict.faults)
    assert verdict.sentence.startswith(f"{verdict.status}: ")


PLAIN = Gate(alpha=0.05, margin=MARGIN, power_margins=1, concurrency=1, seed=0)


def generated_rows(items: int, *, finish: str = "stop", answer: str = "7") -> tuple[ItemRow, ...]:
    return tuple(
        row("b0", f"i{number}", stack, right=True).model_copy(
            update={"finish_reason": finish, "answer": answer}
        )
        for number in range(items)
        for stack in ("float32", "bfloat16")
    )


@pytest.mark.parametrize(("finish", "answer"), [("length", "7"), ("stop", "")])
def test_an_answer_that_was_cut_or_cannot_be_read_scores_nothing(finish: str, answer: str) -> None:
    verdict = judge(
        generated_rows(200, finish=finish, answer=answer),
        reference="float32",
        candidate="bfloat16",
        gate=PLAIN,
        chance={"b0": 0.0},
        generated=("b0",),
    )
    (table,) = verdict.benchmarks
    assert (table.reference_score, table.candidate_score) == (0, 0)
    assert verdict.status != "pass"


def test_leaving_out_the_longest_answer_does_not_turn_a_fail_into_a_pass() -> None:
    rows = [r.model_copy(update={"tokens": 10}) for r in generated_rows(200)]
    long = {f"i{number}" for number in range(4)}
    rows = [
        r.model_copy(update={"tokens": 260, "score": 0})
        if r.item in long and r.stack == "bfloat16"
        else r.model_copy(update={"score": 0})
        if r.item in long
        else r
        for r in rows
    ]

    def status(kept: list[ItemRow]) -> str:
        return judge(
            kept,
            reference="float32",
            candidate="bfloat16",
            gate=PLAIN,
            chance={"b0": 0.0},
            generated=("b0",),
        ).status

    without = [r for r in rows if (r.item, r.stack) != ("i0", "bfloat16")]
    assert status(without) == status(rows)
