"""GSM8K's sums as multiple choice by likelihood: `16-3-4 =` and four numbers, one of them right.

A small model solves next to none of GSM8K, and a benchmark on which nothing is right cannot show a
loss. It does know most of the sums that the worked solutions note as `<<16-3-4=9>>`, so this form
has power; and at a dozen tokens an item it costs little.
"""

from __future__ import annotations

import hashlib
import json
import re
from itertools import count

from pipeline.errors import WorldError
from pipeline.world.benchmark_data import Item, shuffled_order

CHOICES = 4
SUM = re.compile(r"<<([^=<>]+)=(\d+(?:\.\d+)?)>>")


def steps(name: str, data: bytes, file: str) -> tuple[Item, ...]:
    """One item for the first sum of each solution. `data`: JSON lines with an `answer`."""
    items = []
    for number, line in enumerate(data.splitlines()):
        try:
            found = SUM.search(json.loads(line)["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise WorldError(
                f"line {number + 1} is no problem of GSM8K",
                where=file,
                hint=f"compare benchmarks.{name}.evaluator.builtin.source with the package",
            ) from error
        if found:
            items.append(_item(name, f"gsm8k-{number:04}", found[1].strip(), found[2]))
    if not items:
        raise WorldError(f"{name} has no items", where=file)
    return tuple(items)


def _item(name: str, item: str, expression: str, result: str) -> Item:
    choices = (result, *_wrong_results(item, result))
    order = shuffled_order(item, len(choices))
    return Item(
        benchmark=name,
        item=item,
        task="choice",
        is_written=False,
        prompt=f"{expression} =",
        choices=tuple(choices[index] for index in order),
        expected=str(order.index(0)),
    )


def _wrong_results(item: str, result: str) -> tuple[str, ...]:
    """Results off by a few, by a multiple of ten or by a digit, chosen by the hash of the item's id."""
    right = float(result)
    found: list[str] = []
    for draw in count():
        if len(found) == CHOICES - 1:
            break
        kind, size = hashlib.sha256(f"{item}\0{draw}".encode()).digest()[:2]
        few, tens = 1 + size % 9, 10 * (1 + size % 5)
        wrong = (right + few, right - few, right * 10, right + tens)[kind % 4]
        text = str(int(wrong)) if wrong == int(wrong) else f"{wrong:.10g}"
        if wrong >= 0 and wrong != right and text not in found:
            found.append(text)
    return tuple(found)
