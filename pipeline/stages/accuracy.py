"""accuracy: both stacks of one image answer the same items, and the pairs are judged.

Every row goes to items.jsonl: ids, hashes and scores, no text of a benchmark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.canonical import canonical, sha256_bytes, write_whole
from pipeline.gate.verdict import judge
from pipeline.results import AccuracyResult, FileHash, Frozen, ItemRow
from pipeline.world.benchmark_data import Item, chance_of
from pipeline.world.evaluator import Endpoint, Progress, evaluate

Serve = Callable[[str], AbstractContextManager[Endpoint]]


class Evaluator(Protocol):
    """Asks every item and gives one row per item, in order; `evaluate` is the real one."""

    def __call__(
        self,
        endpoint: Endpoint,
        items: Sequence[Item],
        *,
        stack: str,
        concurrency: int,
        seed: int,
        progress: Progress,
    ) -> tuple[ItemRow, ...]: ...


@dataclass(frozen=True, kw_only=True)
class AccuracyTask:
    """Everything that the stage is told; margins and the gate's numbers come from the matrix."""

    key: str  # of this stage: image, stacks, weights, data, suite
    reference: str
    candidate: str
    items: Mapping[str, tuple[Item, ...]]  # by benchmark
    data: tuple[FileHash, ...]  # the files the items were read from
    margins: Mapping[str, float]  # by benchmark
    alpha: float
    power_margins: float
    concurrency: int
    seed: int
    items_file: Path  # its folder also keeps the rows of a finished stack until the other is done


class Head(Frozen):
    """First line of a stack's own file."""

    key: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One stack's rows, in the order of the items."""

    rows: tuple[ItemRow, ...]
    seconds: float


def measure_accuracy(
    task: AccuracyTask,
    serve: Serve,
    progress: Progress,
    *,
    evaluator: Evaluator = evaluate,
    clock: Callable[[], float] = time.monotonic,
) -> AccuracyResult:
    """Ask the reference, then the candidate, and judge.

    A stack that a killed run of the same key had finished is not served again.
    """
    stacks = (task.reference, task.candidate)
    answered: dict[str, Answered] = {}
    for stack in stacks:
        path = task.items_file.with_name(f"items.{stack}.jsonl")
        key = _stack_key(task, stack)
        found = _read(path, key, task)
        if found is None:
            found = _ask(task, stack, serve, progress, evaluator, clock)
            write_whole(
                path, canonical({"key": key, "seconds": found.seconds}) + b"\n" + _lines(found.rows)
            )
        answered[stack] = found
    rows = tuple(row for stack in stacks for row in answered[stack].rows)
    lines = _lines(rows)
    write_whole(task.items_file, lines)
    return AccuracyResult(
        verdict=judge(
            rows,
            reference=task.reference,
            candidate=task.candidate,
            margins=task.margins,
            chance={name: chance_of(items) for name, items in task.items.items()},
            alpha=task.alpha,
            power_margins=task.power_margins,
        ),
        items_sha256=sha256_bytes(lines),
        items_file=task.items_file.name,
        data=task.data,
        settings={
            "concurrency": task.concurrency,
            "seed": task.seed,
            "temperature": 0,
            **{
                f"{name}.max_tokens": max(item.max_tokens for item in items)
                for name, items in task.items.items()
                if items
            },
        },
        stack_seconds={stack: answered[stack].seconds for stack in stacks},
    )


def _ask(
    task: AccuracyTask,
    stack: str,
    serve: Serve,
    progress: Progress,
    evaluator: Evaluator,
    clock: Callable[[], float],
) -> Answered:
    with serve(stack) as endpoint:
        started = clock()
        rows = evaluator(
            endpoint,
            _all_items(task),
            stack=stack,
            concurrency=task.concurrency,
            seed=task.seed,
            progress=progress,
        )
        return Answered(rows=rows, seconds=clock() - started)


def _all_items(task: AccuracyTask) -> tuple[Item, ...]:
    return tuple(item for group in task.items.values() for item in group)


def _stack_key(task: AccuracyTask, stack: str) -> str:
    """Rows may be used again only for the same stage, the same items and the same way of asking."""
    asked = [
        [item.benchmark, item.item, item.prompt, list(item.choices), item.expected, item.max_tokens]
        for item in _all_items(task)
    ]
    parts = {
        "key": task.key,
        "stack": stack,
        "seed": task.seed,
        "concurrency": task.concurrency,
        "items": sha256_bytes(canonical(asked)),
    }
    return sha256_bytes(canonical(parts))


def _read(path: Path, key: str, task: AccuracyTask) -> Answered | None:
    """What an earlier run left under this key, if complete and every item was answered."""
    if not path.exists():
        return None
    first, _, rest = path.read_bytes().partition(b"\n")
    try:
        head = Head.model_validate_json(first)
        rows = tuple(ItemRow.model_validate_json(line) for line in rest.splitlines())
    except ValueError:
        return None  # not written by us or not by this version: not done
    asked = [(item.benchmark, item.item) for item in _all_items(task)]
    complete = [(row.benchmark, row.item) for row in rows] == asked
    if head.key != key or not complete or any(row.error for row in rows):
        return None
    return Answered(rows=rows, seconds=head.seconds)


def _lines(rows: Sequence[ItemRow]) -> bytes:
    return b"".join(canonical(row.model_dump(mode="json")) + b"\n" for row in rows)
