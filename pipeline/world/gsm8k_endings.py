"""GSM8K as multiple choice by likelihood: which of four questions ends this problem?

Small models solve next to none of GSM8K, and a benchmark on which nothing is right cannot show a
loss. They do know which question belongs to a story, so this form of the same problems has power.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import count

from pipeline.errors import WorldError
from pipeline.world.benchmark_data import Item, shuffled_order

CHOICES = 4
SENTENCE = re.compile(r"(?<=[.?!])\s+")


def endings(name: str, data: bytes, file: str) -> tuple[Item, ...]:
    """One item for each problem of three sentences or more. `data`: JSON lines with a `question`.

    The wrong endings are those of three other problems, chosen by the hash of the item's id.
    """
    problems: dict[str, list[str]] = {}
    for number, line in enumerate(data.splitlines()):
        try:
            sentences = SENTENCE.split(json.loads(line)["question"].strip())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WorldError(
                f"line {number + 1} is no problem of GSM8K",
                where=file,
                hint=f"compare benchmarks.{name}.source in matrix.yaml with the package",
            ) from error
        if len(sentences) >= 3:
            problems[f"gsm8k-{number:04}"] = sentences
    others = tuple(dict.fromkeys(sentences[-1] for sentences in problems.values()))
    if len(others) < CHOICES:
        raise WorldError(f"{name} needs problems with {CHOICES} endings", where=file)
    return tuple(_item(name, item, problems[item], others) for item in problems)


def _item(name: str, item: str, sentences: list[str], others: Sequence[str]) -> Item:
    *story, ending = sentences
    choices = [ending]
    for draw in count():
        if len(choices) == CHOICES:
            break
        digest = hashlib.sha256(f"{item}\0{draw}".encode()).digest()
        other = others[int.from_bytes(digest, "big") % len(others)]
        if other not in choices:
            choices.append(other)
    shuffled = shuffled_order(item, len(choices))
    return Item(
        benchmark=name,
        item=item,
        task="choice",
        prompt=" ".join(story),
        choices=tuple(choices[index] for index in shuffled),
        expected=str(shuffled.index(0)),
        per_byte=True,
    )
