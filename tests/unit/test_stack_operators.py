"""What a stack ran with decides whether its answers count: each miss makes the verdict invalid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.gate.operators import operator_faults
from pipeline.gate.verdict import judge_again
from pipeline.operator_evidence import (
    AskedOperators,
    Look,
    OperatorProcess,
    StackOperators,
    stack_operators,
    together,
)
from pipeline.rows import stored_rows
from pipeline.stages.accuracy import measure_accuracy
from tests.unit.test_accuracy import Stacks, task_in, ticking

ASKED = AskedOperators(library="beads", exclude=("softmax",))
STACKS = ("float32", "bfloat16")


def process(**changes: object) -> OperatorProcess:
    base = {
        "library": "beads",
        "rank": 0,
        "process": 328,
        "started": 1.0,
        "include": (),
        "exclude": ("softmax",),
        "available": 3,
        "registered": ("add", "mm"),
        "calls": {"add": 4, "mm": 0},
    }
    return OperatorProcess.model_validate({**base, **changes})


OTHER_RANK = process(rank=1, process=329)


def faults(*looks: Look, asked: AskedOperators | None = ASKED) -> list[str]:
    seen = {
        "float32": stack_operators(None, ((),)),
        "bfloat16": stack_operators(asked, looks),
    }
    return list(operator_faults(seen, STACKS))


def test_a_stack_that_ran_with_what_the_matrix_asks_has_no_fault() -> None:
    assert faults((process(), OTHER_RANK)) == []
    assert faults((process(),), (process(calls={"add": 9, "mm": 1}),)) == []
    only = AskedOperators(library="beads", include=("add",))
    assert faults((process(include=("add",), exclude=(), registered=("add",)),), asked=only) == []
    assert faults((), asked=None) == []


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ((), "bfloat16 is to run beads, but no worker left evidence that it was loaded"),
        (((),), "bfloat16 is to run beads, but no worker left evidence that it was loaded"),
        (((process(),), ()), "bfloat16 left no evidence of beads after 1 of 2 runs"),
        (((process(registered=()),),), "bfloat16: no worker has an operator of beads on"),
        (((process(calls={}),),), "bfloat16: 2 operators of beads are on and none of them ran"),
        (
            ((process(calls={"add": 0}),),),
            "bfloat16: 2 operators of beads are on and none of them ran",
        ),
        (
            ((process(), process(rank=1, calls={})),),
            "bfloat16: no operator of beads ran in 1 of 2 workers",
        ),
        (
            ((process(registered=("add", "softmax")),),),
            "bfloat16: softmax is on, but excluded in the matrix",
        ),
        (
            ((process(registered=("add",)),),),
            "bfloat16: 1 operators are on, but beads has 3 and the matrix excludes 1, which leaves 2",
        ),
        (
            ((process(), process(rank=1, registered=("mm", "silu"))),),
            "bfloat16: its workers do not have the same operators on (2 in 1 and 2 in 1)",
        ),
        (
            ((process(library="rods"),),),
            "bfloat16 is to run beads, but a worker loaded rods",
        ),
    ],
)
def test_each_miss_of_a_candidate_is_named_with_what_to_do(
    looks: tuple[Look, ...], said: str
) -> None:
    (found,) = faults(*looks)
    assert found.startswith(said)
    assert found.partition("; ")[2] != ""


def test_an_include_list_is_held_exactly() -> None:
    asked = AskedOperators(library="beads", include=("add", "silu"))
    found = faults((process(),), asked=asked)
    assert [text.partition(";")[0] for text in found] == [
        "bfloat16: silu is not on, but included in the matrix",
        "bfloat16: mm is on, but not included in the matrix",
    ]


def test_a_stack_without_a_library_must_have_loaded_none() -> None:
    (found,) = faults((process(),), asked=None)
    assert found.startswith(
        "bfloat16 has no operator library in the matrix, but its workers loaded beads"
    )
    native = {"float32": stack_operators(None, ((process(),),)), "bfloat16": one_look(process())}
    (found,) = operator_faults(native, STACKS)
    assert found.startswith("float32 has no operator library in the matrix")


def test_a_stack_that_nobody_looked_at_is_a_fault_and_an_old_record_is_judged_without() -> None:
    (found,) = operator_faults({"bfloat16": one_look(process())}, STACKS)
    assert found.startswith("float32: nobody looked")
    assert list(operator_faults(None, STACKS)) == []


def one_look(*processes: OperatorProcess) -> StackOperators:
    return stack_operators(ASKED, (processes,))


def test_a_process_that_is_seen_twice_counts_once_and_two_servings_add_up() -> None:
    early, late = process(calls={"add": 4}), process(calls={"add": 9, "mm": 1})
    once = stack_operators(ASKED, ((late,), (early,)))
    assert (once.calls, once.processes, once.looks) == ({"add": 9, "mm": 1}, 1, 2)
    again = stack_operators(ASKED, ((process(process=77, started=99.0, calls={"mm": 5}),),))
    both = together(once, again)
    assert (both.calls, both.processes, both.looks) == ({"add": 9, "mm": 6}, 2, 3)
    assert len(both.states) == 1
    assert both.ran == ("add", "mm")


PROCESSES = st.builds(
    lambda rank, started, calls, registered: process(
        rank=rank, started=started, calls=calls, registered=tuple(registered)
    ),
    st.integers(0, 3),
    st.sampled_from([1.0, 2.0]),
    st.dictionaries(st.sampled_from(["add", "mm"]), st.integers(0, 9)),
    st.sets(st.sampled_from(["add", "mm", "softmax"])),
)
LOOKS = st.lists(
    st.lists(PROCESSES, max_size=4, unique_by=lambda p: (p.rank, p.started)).map(tuple), max_size=3
)


@given(LOOKS)
def test_no_evidence_crashes_the_judge_and_none_is_read_as_a_pass(looks: list[Look]) -> None:
    found = faults(*looks)
    seen = [p for look in looks for p in look]
    as_asked = all(set(p.registered) == {"add", "mm"} for p in seen)
    if not seen or not as_asked or not any(sum(p.calls.values()) for p in seen):
        assert found != []


@given(LOOKS, LOOKS)
def test_servings_put_together_have_the_faults_of_each(one: list[Look], other: list[Look]) -> None:
    later = [
        tuple(p.model_copy(update={"started": p.started + 10}) for p in look) for look in other
    ]
    left, right = stack_operators(ASKED, one), stack_operators(ASKED, later)
    both, whole = together(left, right), stack_operators(ASKED, [*one, *later])
    assert set(both.states) == set(whole.states)
    assert (both.idle, both.looks, both.silent) == (whole.idle, whole.looks, whole.silent)
    assert both.calls == whole.calls


# In the stage


def looking(*seen: Look) -> Callable[[str], Look]:
    """What the candidate shows at each look; the reference shows nothing."""
    left = list(seen)
    return lambda stack: left.pop(0) if stack == "bfloat16" else ()


def test_the_stage_records_what_ran_and_the_record_is_judged_again_by_it(tmp_path: Path) -> None:
    task, stacks = replace(task_in(tmp_path), operators={"bfloat16": ASKED}), Stacks()
    result = measure_accuracy(
        task,
        stacks.serve,
        lambda *_: None,
        evaluator=stacks.evaluate,
        look_at=looking((process(),)),
    )
    assert result.verdict.status == "pass"
    assert result.operators is not None
    assert result.operators["float32"].states == ()
    assert result.operators["bfloat16"].ran == ("add",)
    again = judge_again(result, stored_rows(tmp_path, result), task.gate)
    assert again == result.verdict
    silent = result.model_copy(
        update={"operators": {**result.operators, "bfloat16": stack_operators(ASKED, ((),))}}
    )
    assert judge_again(silent, stored_rows(tmp_path, result), task.gate).status == "invalid"


def test_a_candidate_without_evidence_is_invalid_whatever_it_scores(tmp_path: Path) -> None:
    task, stacks = replace(task_in(tmp_path), operators={"bfloat16": ASKED}), Stacks()
    result = measure_accuracy(
        task, stacks.serve, lambda *_: None, evaluator=stacks.evaluate, look_at=looking(())
    )
    assert result.verdict.status == "invalid"
    assert result.verdict.sentence.startswith(
        "invalid: the stacks cannot be compared: bfloat16 is to run beads, but no worker left evidence"
    )


def test_a_killed_run_leaves_the_evidence_beside_its_answers(tmp_path: Path) -> None:
    task = replace(task_in(tmp_path), operators={"bfloat16": ASKED})
    stacks, again = Stacks(), Stacks()

    def killed() -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_accuracy(
            task,
            stacks.serve,
            lambda *_: None,
            evaluator=stacks.evaluate,
            look_at=looking((process(),)),
            least_runs=killed,
        )
    result = measure_accuracy(
        task, again.serve, lambda *_: None, evaluator=again.evaluate, clock=ticking()
    )
    assert again.served == []
    assert result.verdict.status == "pass"
    assert result.operators is not None
    assert result.operators["bfloat16"].calls == {"add": 4}


def test_answers_of_an_earlier_release_come_with_their_operators(tmp_path: Path) -> None:
    task, stacks, again = (
        replace(task_in(tmp_path), operators={"bfloat16": ASKED}),
        Stacks(),
        Stacks(),
    )
    first = measure_accuracy(
        task,
        stacks.serve,
        lambda *_: None,
        evaluator=stacks.evaluate,
        look_at=looking((process(),)),
    )
    second = measure_accuracy(
        task,
        again.serve,
        lambda *_: None,
        evaluator=again.evaluate,
        known=stored_rows(tmp_path, first),
        known_operators=first.operators,
    )
    assert again.served == []
    assert second.verdict == first.verdict
    assert second.operators is not None
    assert second.operators["bfloat16"].ran == ("add",)
