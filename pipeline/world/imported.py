"""Results of harnesses that others ran: their files, one folder a stack, read into rows.

What is not in a file is not made up: no further run, no seed. Who answered is what the file's sidecar says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.accuracy_result import ItemRow
from pipeline.benchmark import Imported, ResultFormat
from pipeline.canonical import sha256_file
from pipeline.errors import WorldError
from pipeline.result_source import ImportedRuns, ResultSource
from pipeline.world.benchmark_data import Item
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress
from pipeline.world.import_flagevalmm import read_flagevalmm
from pipeline.world.import_inspect import read_inspect
from pipeline.world.import_lm_eval import read_lm_eval
from pipeline.world.import_source import ServedStack, doubts, read_source
from pipeline.world.result_files import FoundResult

READERS: Mapping[ResultFormat, Callable[[Path, Imported], tuple[FoundResult, ...]]] = {
    "flagevalmm": read_flagevalmm,
    "inspect": read_inspect,
    "lm-eval": read_lm_eval,
}
ABSENT = FoundResult(item="", prompt_sha256="", error="the result file has no such item")


@dataclass(frozen=True, kw_only=True)
class ImportedBenchmark:
    """One benchmark whose results lie in `<folder>/<stack>/<file>`, of further runs in `<stack>/run-2/<file>` …"""

    name: str
    spec: Imported
    folder: Path
    # Each file is read once: what was checked is what is judged, hours later too.
    _found: dict[Path, dict[str, FoundResult]] = field(default_factory=dict, compare=False)
    _sources: dict[Path, ResultSource | None] = field(default_factory=dict, compare=False)

    def runs(self, stacks: Sequence[ServedStack]) -> ImportedRuns:
        """How many runs there are, and whether they were made by these stacks. Raises WorldError for a copy."""
        count = self._count([stack.name for stack in stacks])
        found = [(stack, [self._path(stack.name, run) for run in range(count)]) for stack in stacks]
        for _, paths in found:
            _refuse_copies(paths)
        return ImportedRuns(
            runs=count,
            next_file=f"results/{self.folder.name}/<stack>/run-{count + 1}/{self.spec.file}",
            doubts=tuple(
                doubt
                for stack, paths in found
                for path in paths
                for doubt in doubts(
                    path,
                    path.relative_to(self.folder).as_posix(),
                    self._source(path),
                    stack,
                    self.spec.format,
                )
            ),
            sources={
                stack.name: tuple(one for path in paths if (one := self._source(path)))
                for stack, paths in found
            },
        )

    def items(self, stacks: Sequence[str], expected: int | None = None) -> tuple[Item, ...]:
        """All items that any stack has, in the order of the first: what one left out is missing, not forgotten."""
        found: dict[str, FoundResult] = {}
        for run in range(self._count(stacks)):
            for stack in stacks:
                for one in self._read(self._path(stack, run)).values():
                    found.setdefault(one.item, one)
        if not found or (expected is not None and len(found) != expected):
            raise WorldError(
                f"the results have {len(found)} items, matrix.yaml expects {expected or 'some'}",
                where=str(self.folder),
                hint=f"see that the whole of {self.spec.task} was run, or correct benchmarks.{self.name}.items",
            )
        return tuple(
            Item(
                benchmark=self.name,
                item=one.item,
                task="choice" if self.spec.choices else "number",
                prompt=one.prompt_sha256,
                expected="",
                choices=("",) * self.spec.choices,
                is_written=one.is_written,
                is_text=False,
            )
            for one in found.values()
        )

    def __call__(
        self,
        endpoint: Endpoint,  # noqa: ARG002 nobody is asked
        items: Sequence[Item],
        *,
        stack: str,
        concurrency: int,  # noqa: ARG002 an evaluator is told it
        seed: int,  # noqa: ARG002 likewise
        repeat: int,
        temperature: float,  # noqa: ARG002 likewise
        progress: Progress,
    ) -> tuple[ItemRow, ...]:
        path = self._path(stack, repeat)
        found, source = self._read(path), self._source(path)
        seed_sent = source.generation.seed if source else None
        progress(stack, len(items), len(items))
        return tuple(
            _row(item, found.get(item.item, ABSENT), stack, seed_sent, repeat) for item in items
        )

    def _path(self, stack: str, run: int) -> Path:
        folder = self.folder / stack
        return (folder / f"run-{run + 1}" if run else folder) / self.spec.file

    def _count(self, stacks: Sequence[str]) -> int:
        """Runs of which every stack has a file; at least one, for its absence is told when it is read."""
        run = 1
        while all(self._path(stack, run).exists() for stack in stacks):
            run += 1
        return run

    def _source(self, path: Path) -> ResultSource | None:
        if path not in self._sources:
            self._sources[path] = read_source(path)
        return self._sources[path]

    def _read(self, path: Path) -> dict[str, FoundResult]:
        """By item. Raises WorldError for a file that is not whole, not of this harness, or has an item twice."""
        if path in self._found:
            return self._found[path]
        by_item: dict[str, FoundResult] = {}
        for one in READERS[self.spec.format](path, self.spec):
            if one.item in by_item:
                raise WorldError(f"the item {one.item} is there twice", where=str(path))
            by_item[one.item] = one
        if not by_item:
            raise WorldError("the file has no results", where=str(path))
        self._found[path] = by_item
        return by_item


def _refuse_copies(paths: Sequence[Path]) -> None:
    """The same answers again are no second look at a stack."""
    seen: dict[str, Path] = {}
    for path in paths if len(paths) > 1 else ():
        first = seen.setdefault(sha256_file(path), path)
        if first is not path:
            raise WorldError(
                f"is a copy of {first}",
                where=str(path),
                hint="run the harness once more for another run, or remove the copy",
            )


def _row(item: Item, found: FoundResult, stack: str, seed: int | None, repeat: int) -> ItemRow:
    is_score = math.isfinite(found.score) and 0 <= found.score <= 1
    error = found.error or ("" if is_score else f"the score is {found.score}")
    return ItemRow(
        benchmark=item.benchmark,
        item=item.item,
        cluster=item.item,
        stack=stack,
        repeat=repeat,
        seed=seed,
        score=0 if error else found.score,
        prompt_sha256=found.prompt_sha256 or item.prompt,
        answer="" if error else found.answer,
        finish_reason=found.finish_reason,
        tokens=found.tokens,
        error=error,
        response_sha256=found.response_sha256,
    )
