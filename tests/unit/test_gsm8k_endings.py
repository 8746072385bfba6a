from __future__ import annotations

import json

import pytest

from pipeline.errors import WorldError
from pipeline.world.benchmark_data import chance_of
from pipeline.world.gsm8k_endings import endings


def problems(count: int) -> bytes:
    texts = [
        f"Ann has {number} pears. She eats one. How many of {number} pears are left?"
        for number in range(count)
    ]
    return b"\n".join(json.dumps({"question": text, "answer": ""}).encode() for text in texts)


def test_the_story_is_the_context_and_its_own_question_the_right_choice() -> None:
    for number, item in enumerate(endings("e", problems(9), "test.jsonl")):
        assert item.item == f"gsm8k-{number:04}"
        assert item.prompt == f"Ann has {number} pears. She eats one."
        assert item.choices[int(item.expected)] == f"How many of {number} pears are left?"
        assert len(set(item.choices)) == 4


def test_guessing_scores_a_quarter_and_the_right_choice_is_not_always_the_first() -> None:
    items = endings("e", problems(60), "test.jsonl")

    assert chance_of(items) == 0.25
    assert {item.expected for item in items} == {"0", "1", "2", "3"}
    assert items == endings("e", problems(60), "test.jsonl")


def test_problems_of_two_sentences_are_left_out() -> None:
    short = json.dumps({"question": "Ann has 2 pears. How many?"}).encode()

    assert len(endings("e", problems(5) + b"\n" + short, "test.jsonl")) == 5


@pytest.mark.parametrize("line", [b"{}", b"not json", b"[]", b'{"question": 3}'])
def test_a_damaged_line_is_named(line: bytes) -> None:
    with pytest.raises(WorldError, match="line 6 is no problem of GSM8K"):
        endings("e", problems(5) + b"\n" + line, "test.jsonl")


def test_too_few_problems_are_refused() -> None:
    with pytest.raises(WorldError, match="needs problems with 4 endings"):
        endings("e", problems(3), "test.jsonl")
