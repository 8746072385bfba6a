"""Answers of the stacks of one cell: asked where they are not known yet, and kept until the stage is done.

A run of the items is known by stack, benchmark and repeat. Each is kept as soon as it is whole, so
that a killed release goes on with what was not done.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.accuracy_result import ItemRow
from pipeline.canonical import canonical, sha256_bytes, write_whole
from pipeline.operator_evidence import Look
from pipeline.results import Frozen
from pipeline.rows import lines
from pipeline.world.benchmark_data import Item
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress

Serve = Callable[[str], AbstractContextManager[Endpoint]]
Served = Callable[[str, Endpoint], None]  # called when a stack is up, before items are asked
LookAt = Callable[[str], Look]  # called when a stack was asked and is still up
Group = tuple[str, str, int]  # stack, benchmark, repeat
NOBODY = Endpoint(base_url="", model="")  # result files need no server


def no_library(_stack: str) -> Look:
    """Nobody wrote anything."""
    return ()


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
        repeat: int,
        temperature: float,
        progress: Progress,
    ) -> tuple[ItemRow, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is asked, and how. `key` names everything else that decides an answer: image, weights, stacks …"""

    key: str
    items: Mapping[str, tuple[Item, ...]]  # by benchmark
    concurrency: int
    seed: int
    temperature: float
    folder: Path  # where unfinished answers are kept
    # Benchmarks that somebody else asked, each with the runs that there are files of: read anew each time, never asked.
    imported: Mapping[str, int] = field(default_factory=dict)

    @property
    def rows_key(self) -> str:
        """Rows may be used again only for the same items and the same way of asking."""
        asked = [
            [i.benchmark, i.item, i.prompt, list(i.choices), i.expected, i.max_tokens]
            for name, items in self.items.items()
            if name not in self.imported
            for i in items
        ]
        parts = {
            "key": self.key,
            "concurrency": self.concurrency,
            "seed": self.seed,
            "temperature": self.temperature,
            "items": sha256_bytes(canonical(asked)),
        }
        return sha256_bytes(canonical(parts))


class Head(Frozen):
    """First line of a file of unfinished answers."""

    key: str
    seconds: float
    operators: Look  # of the stack, once it had answered


@dataclass(kw_only=True)
class Answers:
    """Rows by stack, benchmark and repeat; a group is there only if whole and without an error."""

    asking: Asking
    serve: Serve
    evaluator: Evaluator
    progress: Progress
    on_served: Served
    look_at: LookAt
    clock: Callable[[], float] = time.monotonic
    groups: dict[Group, tuple[ItemRow, ...]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # of asking, by stack
    looks: dict[str, list[Look]] = field(default_factory=dict)  # at the operators, by stack

    def add_known(self, rows: Iterable[ItemRow]) -> None:
        """Rows of an earlier run of the same `rows_key`."""
        found: dict[Group, dict[str, ItemRow]] = {}
        for row in rows:
            found.setdefault((row.stack, row.benchmark, row.repeat), {})[row.item] = row
        for group, by_item in found.items():
            asked = [item.item for item in self.asking.items.get(group[1], ())]
            if (
                asked
                and group[1] not in self.asking.imported
                and by_item.keys() == set(asked)
                and not any(r.error for r in by_item.values())
            ):
                self.groups[group] = tuple(by_item[item] for item in asked)

    def add_unfinished(self, stacks: Sequence[str]) -> None:
        """What a killed run left in the folder."""
        for path in self._files():
            first, _, rest = path.read_bytes().partition(b"\n")
            try:
                head = Head.model_validate_json(first)
                rows = [ItemRow.model_validate_json(line) for line in rest.splitlines()]
            except ValueError:
                continue  # not written by us or not by this version: not done
            if head.key == self.asking.rows_key and {row.stack for row in rows} <= set(stacks):
                self.add_known(rows)
                for stack in {row.stack for row in rows}:
                    self.seconds[stack] = self.seconds.get(stack, 0.0) + head.seconds
                    self.looks.setdefault(stack, []).append(head.operators)

    def ask(self, stack: str, benchmarks: Sequence[str], runs: int) -> None:
        """Make the first `runs` runs of the benchmarks known; serves the stack only if it has to be asked for one."""
        there = self.asking.imported
        for repeat, names in self._missing(stack, [n for n in benchmarks if n in there], runs):
            self._keep(stack, names, repeat, self._rows(NOBODY, stack, names, repeat))
        asked = self._missing(stack, [n for n in benchmarks if n not in there], runs)
        if not asked:
            return
        with self.serve(stack) as endpoint:
            self.on_served(stack, endpoint)
            for repeat, names in asked:
                self._ask_once(endpoint, stack, names, repeat)

    def _missing(
        self, stack: str, benchmarks: Sequence[str], runs: int
    ) -> list[tuple[int, list[str]]]:
        """By repeat. Of what somebody else asked there are no more runs than files."""
        there = self.asking.imported
        found = [
            (
                repeat,
                [
                    n
                    for n in benchmarks
                    if (stack, n, repeat) not in self.groups and repeat < there.get(n, runs)
                ],
            )
            for repeat in range(runs)
        ]
        return [(repeat, names) for repeat, names in found if names]

    def rows(self, stacks: Sequence[str]) -> tuple[ItemRow, ...]:
        """Run by run, stack by stack, benchmarks and items in the order they were named."""
        repeats = sorted({repeat for _, _, repeat in self.groups})
        return tuple(
            row
            for repeat in repeats
            for stack in stacks
            for name in self.asking.items
            for row in self.groups.get((stack, name, repeat), ())
        )

    def forget_unfinished(self) -> None:
        """The stage is done; what is left here would only be mistaken for a killed run."""
        for path in self._files():
            path.unlink()

    def _ask_once(self, endpoint: Endpoint, stack: str, names: Sequence[str], repeat: int) -> None:
        asking = self.asking
        started = self.clock()
        rows = self._rows(endpoint, stack, names, repeat)
        seconds = self.clock() - started
        self.seconds[stack] = self.seconds.get(stack, 0.0) + seconds
        self._keep(stack, names, repeat, rows)
        kept = [row for name in names for row in self.groups[stack, name, repeat]]
        found = self.look_at(stack)
        self.looks.setdefault(stack, []).append(found)
        head = Head(key=asking.rows_key, seconds=seconds, operators=found)
        number = len(list(asking.folder.glob(f"items.{stack}.{repeat}.*.jsonl")))
        write_whole(
            asking.folder / f"items.{stack}.{repeat}.{number}.jsonl",
            canonical(head.model_dump(mode="json")) + b"\n" + lines(kept),
        )

    def _rows(
        self, endpoint: Endpoint, stack: str, names: Sequence[str], repeat: int
    ) -> tuple[ItemRow, ...]:
        asking = self.asking
        return self.evaluator(
            endpoint,
            shuffled([item for name in names for item in asking.items[name]], repeat),
            stack=stack,
            concurrency=asking.concurrency,
            seed=asking.seed + repeat,
            repeat=repeat,
            temperature=asking.temperature,
            progress=self.progress,
        )

    def _keep(self, stack: str, names: Sequence[str], repeat: int, rows: Sequence[ItemRow]) -> None:
        for name in names:
            by_item = {row.item: row for row in rows if row.benchmark == name}
            # Failed rows too: they are judged now, and asked again only by another run.
            self.groups[stack, name, repeat] = tuple(
                by_item[item.item] for item in self.asking.items[name] if item.item in by_item
            )

    def _files(self) -> list[Path]:
        return sorted(self.asking.folder.glob("items.*.*.*.jsonl"))


def shuffled(items: Sequence[Item], repeat: int) -> tuple[Item, ...]:
    """Another order a run, so that other items share a batch: greedy answers to the same batch are copies."""

    def place(item: Item) -> bytes:
        return hashlib.sha256(f"{repeat}\0{item.benchmark}\0{item.item}".encode()).digest()

    return tuple(items) if repeat == 0 else tuple(sorted(items, key=place))
