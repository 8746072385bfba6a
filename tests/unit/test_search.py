"""The search against oracles that are functions: culprits alone, in pairs and triples, and oracles that mask."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from itertools import combinations, pairwise
from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.gate.hitting import smallest_hitting_set
from pipeline.gate.search import (
    Culprits,
    Masking,
    Operators,
    Question,
    claims,
    find_culprits,
    maskings,
)

Oracle = Callable[[Operators], bool]
MANY = tuple(f"op{number:03}" for number in range(400))
FEW = tuple("abcdef")


def sets_of(*words: str) -> set[Operators]:
    """`sets_of("ab", "c")` is {{a, b}, {c}}."""
    return {frozenset(word) for word in words}


def any_of(families: Iterable[Collection[str]]) -> Oracle:
    """Fails when one of the families is switched on whole."""
    wanted = [frozenset(family) for family in families]
    return lambda enabled: any(family <= enabled for family in wanted)


def ask(
    operators: Iterable[str], fails: Oracle, *, width: int = 1, likely: Collection[str] = ()
) -> tuple[Culprits, list[Question]]:
    """The answer and every question, with what must hold for all of them."""
    search = find_culprits(operators, width=width, likely=likely)
    questions: list[Question] = []
    asked: set[Operators] = set()
    try:
        question = next(search)
        while True:
            assert 1 <= len(question.probes) <= width
            assert asked.isdisjoint(question.probes)
            asked.update(question.probes)
            questions.append(question)
            question = search.send({probe: fails(probe) for probe in question.probes})
    except StopIteration as stop:
        found: Culprits = stop.value
    assert (found.probes, found.rounds) == (len(asked), len(questions))
    return found, questions


def planted(sizes: Collection[int], seed: int) -> list[Operators]:
    """Disjoint random families of these sizes among 400 operators."""
    names = iter(random.Random(seed).sample(MANY, sum(sizes)))
    return [frozenset(next(names) for _ in range(size)) for size in sizes]


@pytest.mark.parametrize("sizes", [(1,), (1, 1), (1, 1, 1), (2,), (3,), (2, 1)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_culprits_among_400_are_found_within_twice_the_bound(
    sizes: tuple[int, ...], seed: int
) -> None:
    families = planted(sizes, seed)
    found, _ = ask(MANY, any_of(families))
    assert found.status == "found"
    assert set(found.failing_sets) == set(families)
    assert len(found.exclusion) == len(families)
    k = sum(sizes)
    assert found.probes <= 2 * k * log2(len(MANY) / k)


@pytest.mark.parametrize("width", [2, 4, 7])
@pytest.mark.parametrize("sizes", [(1,), (1, 1), (2,)], ids=str)
def test_parallel_probes_give_the_same_answer_in_fewer_rounds(
    width: int, sizes: tuple[int, ...]
) -> None:
    families = planted(sizes, seed=width)
    alone, _ = ask(MANY, any_of(families))
    together, _ = ask(MANY, any_of(families), width=width)
    assert set(together.failing_sets) == set(alone.failing_sets)
    assert together.rounds < alone.rounds


@pytest.mark.parametrize("culprit", ["op000", "op199", "op200", "op287", "op399"])
def test_one_culprit_needs_half_the_rounds_with_four_probes_at_once(culprit: str) -> None:
    rounds = [ask(MANY, any_of([{culprit}]), width=width)[0].rounds for width in (1, 4, 7)]
    assert rounds[0] <= 13
    assert rounds[1] <= 6
    assert rounds[2] <= 5


def test_a_right_guess_saves_probes_and_a_wrong_one_costs_few() -> None:
    guess = MANY[100:122]
    plain, right, wrong = (
        ask(MANY, any_of([{culprit}]), likely=likely)[0]
        for culprit, likely in (("op110", ()), ("op110", guess), ("op300", guess))
    )
    assert plain.failing_sets == right.failing_sets
    assert right.probes <= plain.probes - 3
    assert wrong.failing_sets == (frozenset({"op300"}),)
    assert wrong.probes <= plain.probes + 2


def test_a_pair_needs_one_exclusion() -> None:
    found, _ = ask(FEW, any_of(["be"]))
    assert found.failing_sets == (frozenset("be"),)
    assert found.exclusion in sets_of("b", "e")


def test_an_operator_in_two_pairs_is_the_smallest_exclusion() -> None:
    found, _ = ask(FEW, any_of(["ac", "cf"]))
    assert set(found.failing_sets) == sets_of("ac", "cf")
    assert found.exclusion == {"c"}


def test_nothing_is_searched_when_all_operators_together_pass() -> None:
    found, _ = ask(FEW, lambda _: False)
    assert (found.status, found.failing_sets, found.exclusion) == ("nothing_fails", (), frozenset())
    assert found.probes == 2


def test_no_operator_is_blamed_when_the_server_fails_with_none_switched_on() -> None:
    found, _ = ask(FEW, lambda _: True)
    assert (found.status, found.failing_sets, found.probes) == ("no_operator", (), 2)


def test_questions_say_where_the_next_culprit_is_and_what_was_found() -> None:
    _, questions = ask(MANY, any_of([{"op010"}, {"op300"}]))
    for question in questions:
        culprits = {"op010", "op300"} - frozenset().union(*question.failing_sets)
        assert not culprits or culprits & question.suspects
    assert questions[-1].failing_sets == (frozenset({"op010"}), frozenset({"op300"}))
    halving = [len(question.suspects) for question in questions[2:10]]
    assert halving[0] == 400
    assert all(less <= (more + 1) // 2 for more, less in pairwise(halving))


def test_a_fault_that_another_operator_masks_is_reported_and_the_exclusion_still_passes() -> None:
    def fails(enabled: Operators) -> bool:
        return "d" in enabled or ("b" in enabled and "f" not in enabled)

    found, _ = ask("abcdef", fails)
    assert not fails(frozenset(FEW) - found.exclusion)
    assert all(fails(failing) for failing in found.failing_sets)
    assert frozenset("b") in found.failing_sets
    assert Masking(failing=frozenset("b"), passing=frozenset("abcef")) in found.maskings


def test_maskings_name_the_smallest_sets_on_both_sides() -> None:
    fails = {
        frozenset("a"): True,
        frozenset("ab"): True,
        frozenset("abc"): False,
        frozenset("abcd"): False,
        frozenset("e"): False,
    }
    assert maskings(fails) == (Masking(failing=frozenset("a"), passing=frozenset("abc")),)


def test_claims_are_everything_that_the_answer_stands_on() -> None:
    found, _ = ask(FEW, any_of(["be", "d"]))
    says = {claim.says: (claim.enabled, claim.fails) for claim in claims(found, FEW)}
    assert says == {
        "everything but the exclusion passes": (frozenset(FEW) - found.exclusion, False),
        "b + e alone fails": (frozenset("be"), True),
        "b alone passes": (frozenset("b"), False),
        "e alone passes": (frozenset("e"), False),
        "d alone fails": (frozenset("d"), True),
        "none on passes": (frozenset(), False),
    }


def test_a_search_without_probes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one probe at a time, got 0"):
        next(find_culprits(FEW, width=0))


FAMILIES = st.lists(st.frozensets(st.sampled_from(MANY[:24]), min_size=1, max_size=3), max_size=4)


@settings(deadline=None, max_examples=150)
@given(FAMILIES, st.integers(1, 9), st.frozensets(st.sampled_from(MANY[:24])))
def test_any_families_are_hit_by_a_smallest_exclusion(
    families: list[Operators], width: int, likely: Operators
) -> None:
    operators = MANY[:24]
    fails = any_of(families)
    found, _ = ask(operators, fails, width=width, likely=likely)
    minimal = {f for f in families if not any(other < f for other in families)}
    assert found.status == ("found" if families else "nothing_fails")
    assert set(found.failing_sets) <= minimal
    assert found.maskings == ()
    assert all(fails(claim.enabled) == claim.fails for claim in claims(found, operators))
    smaller = combinations(sorted(set().union(*minimal)), max(len(found.exclusion) - 1, 0))
    assert not families or all(fails(frozenset(operators) - set(less)) for less in smaller)


@settings(deadline=None, max_examples=100)
@given(FAMILIES)
def test_probes_are_bounded_by_a_bisection_and_two_more_for_each_culprit(
    families: list[Operators],
) -> None:
    """All and none, an exclusion for each set, and each of the exclusion put back."""
    found, _ = ask(MANY[:24], any_of(families))
    for_culprits = sum(len(failing) * (ceil(log2(24)) + 2) for failing in found.failing_sets)
    assert found.probes <= 2 + for_culprits + len(found.failing_sets) + len(found.exclusion)


@settings(deadline=None, max_examples=150)
@given(st.sets(st.frozensets(st.sampled_from("abcde"))), st.integers(1, 4))
def test_any_oracle_at_all_ends_with_an_exclusion_that_passes(
    failing: set[Operators], width: int
) -> None:
    """No order, no reason: the answers of each set are drawn on their own."""
    found, _ = ask("abcde", lambda enabled: enabled in failing, width=width)
    if found.status == "no_operator":
        assert frozenset() in failing
    elif found.status == "nothing_fails":
        assert frozenset("abcde") not in failing
    else:
        for claim in claims(found, "abcde"):
            assert (claim.enabled in failing) == claim.fails


@settings(deadline=None, max_examples=100)
@given(st.lists(st.frozensets(st.sampled_from("abcdefg"), min_size=1, max_size=4), max_size=6))
def test_hitting_sets_are_the_smallest_there_are(sets: list[Operators]) -> None:
    found = smallest_hitting_set(sets)
    assert all(found & names for names in sets)
    smaller = combinations("abcdefg", len(found) - 1) if found else iter(())
    assert not any(all(names & set(less) for names in sets) for less in smaller)
    assert smallest_hitting_set(sets[::-1]) == found


def test_an_empty_set_cannot_be_hit() -> None:
    with pytest.raises(ValueError, match="an empty set cannot be hit"):
        smallest_hitting_set([frozenset("a"), frozenset()])
