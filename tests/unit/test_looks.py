"""The judge over several runs: what it decides at each look, and what it asks for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.accuracy_result import ItemRow, Troubles, Verdict
from pipeline.gate.looks import rule_of
from pipeline.gate.paired import score_lower_bound
from pipeline.gate.pairing import pair
from pipeline.gate.simulate import Design, judged
from pipeline.gate.verdict import judge
from pipeline.policy import Gate, policy_sha256
from tests.gate_rows import STACKS, gate_of, rows_of_scores

RIGHT, WRONG = [1.0] * 4, [0.0] * 4
LOST_ONCE, GAINED_ONCE = [0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]


def verdict_of(rows: Sequence[ItemRow], gate: Gate, **more: object) -> Verdict:
    names = dict.fromkeys(one.benchmark for one in rows)
    return judge(
        rows,
        reference=STACKS[0],
        candidate=STACKS[1],
        gate=gate,
        chance=dict.fromkeys(names, 0.25),
        **more,  # type: ignore[arg-type]
    )


def quiz(
    name: str = "quiz", *, both: int = 0, lost: int = 0, gained: int = 0, lost_always: int = 0
) -> tuple[ItemRow, ...]:
    """200 items in four runs; `lost` and `gained` ones flip in the first run alone."""
    neither = 200 - both - lost - gained - lost_always
    reference = [RIGHT] * (both + lost + lost_always) + [WRONG] * (gained + neither)
    candidate = [RIGHT] * both + [LOST_ONCE] * lost + [WRONG] * lost_always
    candidate += [GAINED_ONCE] * gained + [WRONG] * neither
    return rows_of_scores(name, reference, candidate)


def runs(rows: Sequence[ItemRow], count: int) -> tuple[ItemRow, ...]:
    return tuple(one for one in rows if one.repeat < count)


def test_an_undecided_benchmark_asks_for_the_runs_of_the_next_look() -> None:
    rows = (*quiz("clear", both=120), *quiz("doubtful", both=120, lost=14, gained=5))
    verdict = verdict_of(runs(rows, 1), gate_of(margin=0.06))

    assert (verdict.next_runs, verdict.undecided) == (2, ("doubtful",))
    assert verdict.sentence == (
        "inconclusive: bfloat16 may be worse than float32 by more than the margin (doubtful: loss "
        "bound -9.7, margin 6.0, 14 items lost and 5 gained of 200); judged again after 2 runs"
    )


def test_what_is_decided_keeps_the_runs_it_was_decided_with() -> None:
    rows = (*quiz("clear", both=120), *quiz("doubtful", both=120, lost=14, gained=5))
    verdict = verdict_of(rows, gate_of(margin=0.06))

    assert verdict.status == "pass"
    assert {one.benchmark: one.runs for one in verdict.benchmarks} == {"clear": 1, "doubtful": 2}
    assert verdict.runs == 2
    assert ", up to 2 runs each;" in verdict.sentence


def test_rows_beyond_the_deciding_look_change_nothing() -> None:
    rows = quiz(both=120, lost=1)

    assert verdict_of(rows, gate_of()) == verdict_of(runs(rows, 1), gate_of())


def test_a_loss_that_returns_in_every_run_never_passes() -> None:
    verdict = verdict_of(quiz(both=110, lost_always=14), gate_of(harm=False))

    assert (verdict.status, verdict.next_runs) == ("inconclusive", None)
    assert verdict.benchmarks[0].runs == 4
    assert verdict.sentence.endswith(
        "56 items lost and 0 gained of 200 in 4 runs); more items would decide"
    )


def test_harm_fails_at_the_look_that_shows_it_unless_the_policy_leaves_harm_to_the_margins() -> (
    None
):
    rows = runs(quiz(both=110, lost_always=9), 1)

    assert verdict_of(rows, gate_of(margin=0.12)).status == "fail"
    assert verdict_of(rows, gate_of(margin=0.12, harm=False)).status == "pass"


def test_a_verdict_names_its_levels_and_its_policy() -> None:
    gate = gate_of()
    verdict = verdict_of(quiz(both=120), gate)

    assert verdict.alpha == pytest.approx(0.01716, abs=1e-5)
    assert verdict.harm_alpha == verdict.alpha
    assert verdict.policy_sha256 == policy_sha256(gate, ["quiz"])
    assert verdict.policy_sha256 != policy_sha256(gate_of(margin=0.07), ["quiz"])
    assert verdict.policy_sha256 != policy_sha256(gate, ["quiz", "other"])


def test_small_losses_on_every_benchmark_add_up_over_all_items() -> None:
    rows = [one for name in "abcdefgh" for one in runs(quiz(name, both=110, lost=5, gained=1), 1)]
    alone = verdict_of(rows, gate_of())
    together = verdict_of(rows, gate_of(pooled_margin=0.01))

    assert alone.status == "pass"
    assert together.pooled is not None
    assert together.pooled.n == 1600
    assert together.pooled.difference == pytest.approx(-0.02)
    assert together.pooled.lower_bound < -0.02
    assert together.sentence.startswith(
        "inconclusive: bfloat16 may be worse than float32 by more than the margin over all items"
    )
    assert together.undecided == tuple("abcdefgh")


def test_an_advisory_benchmark_neither_fails_nor_carries_a_verdict() -> None:
    harmed = quiz("judged", both=60, lost_always=60)
    verdict = verdict_of((*quiz(both=120), *harmed), gate_of(advisory=("judged",)))

    assert verdict.status == "pass"
    assert verdict.benchmarks[1].tier == "advisory"
    assert verdict.warnings == (
        "judged (advisory): bfloat16 is worse than float32 (60 items lost and 0 gained of 200)",
    )
    alone = verdict_of(harmed, gate_of(advisory=("judged",)))
    assert alone.sentence == ("inconclusive: no benchmark of the policy decides, all are advisory")


def test_a_benchmark_without_power_blocks_nothing_but_can_show_harm() -> None:
    weak = quiz("weak", both=50, lost=3, gained=3)
    verdict = verdict_of((*quiz(both=120), *weak), gate_of(margin=0.03, margins={"quiz": 0.08}))

    assert verdict.sentence.endswith("no power: weak")
    assert verdict.status == "pass"
    harmed = quiz("weak", both=25, lost_always=25)
    assert verdict_of((*quiz(both=120), *harmed), gate_of()).status == "fail"


def test_missing_rows_of_the_reference_do_not_excuse_a_benchmark_from_deciding() -> None:
    """The reference has just enough right answers for power, and would not without one of them."""
    gate = gate_of(margin=0.06)
    level = rule_of(gate, {"edge": 0.25}).level
    right = next(r for r in range(200) if score_lower_bound(r / 200, 200, level) - 0.25 >= 0.06)
    clear = runs(quiz("clear", both=120), 1)
    edge = runs(quiz("edge", both=right - 14, lost=14, gained=5), 1)
    left = tuple(one for one in edge if one.stack == "bfloat16" or one.item != "edge-0000")
    before, after = verdict_of((*clear, *edge), gate), verdict_of((*clear, *left), gate)

    assert [one.benchmarks[1].has_power for one in (before, after)] == [True, False]
    assert (before.status, before.undecided) == ("inconclusive", ("edge",))
    assert (after.status, after.undecided) == ("inconclusive", ("edge",))
    assert "(edge: loss bound" in after.sentence


def test_the_margin_of_a_low_score_shrinks_with_the_score() -> None:
    rows = runs(quiz(both=20), 1)
    verdict = judge(
        rows,
        reference=STACKS[0],
        candidate=STACKS[1],
        gate=gate_of(power_margins=0, relative_below=0.2),
        chance={"quiz": 0.0},
    )

    assert verdict.benchmarks[0].reference_score == 0.1
    assert verdict.benchmarks[0].margin == pytest.approx(0.04)


def test_a_significant_gain_is_a_warning_with_a_reason() -> None:
    verdict = verdict_of(runs(quiz(both=110, gained=12), 1), gate_of())

    assert verdict.status == "pass"
    assert verdict.warnings == (
        "quiz: bfloat16 is better than float32 beyond chance (0 items lost and 12 gained of 200, "
        "p = 0.00024); some faults raise a score, so look why",
    )


def test_a_gain_beyond_the_margin_is_no_pass() -> None:
    verdict = verdict_of(quiz(both=100, gained=60), gate_of())

    assert (verdict.status, verdict.next_runs) == ("inconclusive", None)
    assert verdict.sentence == (
        "inconclusive: bfloat16 is better than float32 by more than the margin (quiz: 80.0 for 50.0, "
        "0 items lost and 60 gained of 200), which equal weights do not explain; look for a damaged "
        "reference or a mask that lets answers through"
    )


def test_an_earlier_warning_lets_nothing_pass_before_its_runs() -> None:
    rows = quiz(both=120, lost=1)

    assert verdict_of(runs(rows, 2), gate_of(), least_runs=4).sentence == (
        "inconclusive: bfloat16 is within every margin so far, but an earlier check asks for more "
        "runs; judged again after 4 runs"
    )
    assert verdict_of(rows, gate_of(), least_runs=4).status == "pass"


def written(
    rows: Sequence[ItemRow], stack: str, count: int, **change: object
) -> tuple[ItemRow, ...]:
    """The first `count` rows of a stack changed."""
    chosen = [one for one in rows if one.stack == stack][:count]
    return tuple(one.model_copy(update=change) if one in chosen else one for one in rows)


def test_cut_and_unreadable_answers_are_counted_for_each_stack() -> None:
    rows = runs(quiz(both=120), 1)
    rows = written(written(rows, "bfloat16", 3, finish_reason="length"), "float32", 2, answer="")
    verdict = verdict_of(rows, gate_of(), generated=("quiz",))

    assert verdict.benchmarks[0].troubles_candidate == Troubles(truncated=3)
    assert verdict.benchmarks[0].troubles_reference == Troubles(unreadable=2)
    assert verdict.status == "pass"


def test_a_choice_is_never_cut_off() -> None:
    rows = written(runs(quiz(both=120), 1), "bfloat16", 200, finish_reason="length")

    assert verdict_of(rows, gate_of()).benchmarks[0].troubles_candidate == Troubles()


def test_more_unreadable_answers_than_chance_explains_fail_whatever_the_score() -> None:
    # On the last items both stacks are wrong, so that no score changes.
    rows = written(tuple(reversed(runs(quiz(both=120), 1))), "bfloat16", 30, answer="")

    assert verdict_of(rows, gate_of()).sentence == (
        "fail: bfloat16 answers in another way (quiz: 30 answers of bfloat16 failed, were cut off or "
        "could not be read, 0 of float32)"
    )


def test_a_few_more_unreadable_answers_are_a_warning() -> None:
    verdict = verdict_of(written(runs(quiz(both=120), 1), "bfloat16", 4, answer=""), gate_of())

    assert verdict.status == "pass"
    assert verdict.warnings == (
        "quiz: 4 answers of bfloat16 failed, were cut off or could not be read, 0 of float32",
    )


def test_unanswered_requests_beyond_the_limit_let_nothing_pass() -> None:
    rows = written(runs(quiz(both=120), 1), "bfloat16", 3, error="HTTP 500")

    assert verdict_of(rows, gate_of()).sentence == (
        "inconclusive: too many requests failed for a comparison (bfloat16 left 3 of 200 requests of "
        "quiz unanswered); failed requests: 0 of float32, 3 of bfloat16"
    )


def test_answers_of_another_length_fail_where_they_are_written() -> None:
    rows = written(runs(quiz(both=120), 1), "bfloat16", 200, tokens=13)

    assert verdict_of(rows, gate_of()).status == "pass"
    assert verdict_of(rows, gate_of(), generated=("quiz",)).sentence == (
        "fail: bfloat16 answers in another way (quiz: answers of bfloat16 are 1.30 times as long as "
        "those of float32)"
    )


def test_questions_that_share_a_page_count_as_one_cluster_each() -> None:
    pages = {number: f"page {number // 10}" for number in range(200)}
    table = [[1.0]] * 120 + [[0.0]] * 80
    lost = [[0.0]] * 4 + [[1.0]] * 116 + [[0.0]] * 80
    alone = verdict_of(rows_of_scores("quiz", table, lost), gate_of())
    shared = verdict_of(rows_of_scores("quiz", table, lost, pages), gate_of())

    assert (alone.benchmarks[0].clusters, shared.benchmarks[0].clusters) == (None, 20)
    assert shared.benchmarks[0].lower_bound < alone.benchmarks[0].lower_bound


TABLE = st.lists(
    st.sampled_from([RIGHT, WRONG, LOST_ONCE, GAINED_ONCE, [0.5] * 4]), min_size=1, max_size=30
)
GOODNESS = {"fail": 0, "inconclusive": 1, "pass": 2}


@settings(max_examples=12, deadline=None)
@given(TABLE, st.integers(1, 4), st.data())
def test_missing_rows_of_the_candidate_never_help_in_any_run(
    table: list[list[float]], count: int, data: st.DataObject
) -> None:
    times = data.draw(st.integers(1, 8))
    rows = runs(rows_of_scores("quiz", table * times, table[::-1] * times), count)
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1, max_size=6))
    left = [one for at, one in enumerate(rows) if at not in gone or one.stack == "float32"]
    gate = gate_of(power_margins=0, relative_below=0, unusable_excess=0.5)
    before, after = verdict_of(rows, gate), verdict_of(left, gate)

    assert after.status == "invalid" or GOODNESS[after.status] <= GOODNESS[before.status]


@settings(max_examples=10, deadline=None)
@given(st.lists(TABLE, min_size=1, max_size=2), st.data())
def test_the_simulation_decides_as_the_judge_does(
    tables: list[list[list[float]]], data: st.DataObject
) -> None:
    gate = gate_of(power_margins=0, unusable_excess=1, pooled_margin=0.05, looks=(1, 2, 4))
    names = [f"quiz {number}" for number in range(len(tables))]
    rows = [
        rows_of_scores(name, table * 5, data.draw(st.permutations(table)) * 5)
        for name, table in zip(names, tables, strict=True)
    ]
    verdict = verdict_of([one for part in rows for one in part], gate)
    pairs = [pair(part, STACKS, is_generated=False) for part in rows]
    looks = [[one.evidence(look) for one in pairs] for look in gate.looks]
    evidence = [type(parts[0]).joined(parts).as_draw() for parts in looks]
    design = Design(
        items=np.array([5.0 * len(table) for table in tables]),
        scores=np.zeros(len(tables)),
        looks=gate.looks,
        rule=rule_of(gate, dict.fromkeys(names, 0.25)),
    )
    passed, failed, _ = judged(evidence, design)

    assert (bool(passed[0]), bool(failed[0])) == (
        verdict.status == "pass",
        verdict.status == "fail",
    )
