from __future__ import annotations

import json

import pytest

from pipeline.errors import WorldError
from pipeline.world.benchmark_data import chance_of
from pipeline.world.gsm8k_steps import steps


def problems(*answers: str) -> bytes:
    lines = [json.dumps({"question": "How many?", "answer": answer}) for answer in answers]
    return "\n".join(lines).encode()


SUMS = problems(*(f"He has 2*{n} = $<<2*{n}={2 * n}>>{2 * n}.\n#### {2 * n}" for n in range(60)))


def test_the_first_sum_of_a_solution_is_the_context_and_its_result_the_right_choice() -> None:
    two = problems("She sells <<16-3-4=9>>9, for $<<9*2=18>>18.\n#### 18")
    (item,) = steps("s", two, "test.jsonl")

    assert (item.item, item.prompt) == ("gsm8k-0000", "16-3-4 =")
    assert item.choices[int(item.expected)] == "9"
    assert len(set(item.choices)) == 4


def test_guessing_scores_a_quarter_and_the_right_choice_is_not_always_the_first() -> None:
    items = steps("s", SUMS, "test.jsonl")

    assert chance_of(items) == 0.25
    assert {item.expected for item in items} == {"0", "1", "2", "3"}
    assert items == steps("s", SUMS, "test.jsonl")


@pytest.mark.parametrize("result", ["0", "2.5", "1000000", "0.1"])
def test_wrong_results_are_other_numbers_and_none_is_below_0(result: str) -> None:
    (item,) = steps("s", problems(f"<<1+1={result}>>"), "test.jsonl")
    numbers = [float(choice) for choice in item.choices]

    assert len(set(numbers)) == 4
    assert min(numbers) >= 0


def test_solutions_without_a_sum_are_left_out() -> None:
    found = steps("s", problems("It is 3.", "<<1+1=2>>2"), "test.jsonl")

    assert [item.item for item in found] == ["gsm8k-0001"]


@pytest.mark.parametrize("line", [b"{}", b"not json", b"[]", b'{"answer": 3}'])
def test_a_damaged_line_is_named(line: bytes) -> None:
    with pytest.raises(WorldError, match="line 2 is no problem of GSM8K"):
        steps("s", problems("<<1+1=2>>2") + b"\n" + line, "test.jsonl")


def test_a_file_without_sums_is_refused() -> None:
    with pytest.raises(WorldError, match="s has no items"):
        steps("s", problems("It is 3."), "test.jsonl")
