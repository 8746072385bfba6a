"""Results of harnesses that others ran: their files, one folder a stack, read into rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmark import Imported, ResultFormat
from pipeline.errors import WorldError
from pipeline.results import ItemRow
from pipeline.world.benchmark_data import Item
from pipeline.world.evaluator import Endpoint, Progress
from pipeline.world.import_flagevalmm import read_flagevalmm
from pipeline.world.import_inspect import read_inspect
from pipeline.world.import_lm_eval import read_lm_eval
from pipeline.world.result_files import FoundResult

READERS: Mapping[ResultFormat, Callable[[Path, Imported], tuple[FoundResult, ...]]] = {
    "flagevalmm": read_flagevalmm,
    "inspect": read_inspect,
    "lm-eval": read_lm_eval,
}
ABSENT = FoundResult(item="", prompt_sha256="", error="the result file has no such item")


@dataclass(frozen=True, kw_only=True)
class ImportedBenchmark:
    """One benchmark whose results lie in `<folder>/<stack>/<file>`. Nobody is asked."""

    name: str
    spec: Imported
    folder: Path

    def items(self, stacks: Sequence[str], expected: int | None = None) -> tuple[Item, ...]:
        """All items that any stack has, in the order of the first: what one left out is missing, not forgotten."""
        found: dict[str, FoundResult] = {}
        for stack in stacks:
            for one in self._read(stack).values():
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
        seed: int,
        repeat: int,
        temperature: float,  # noqa: ARG002 likewise
        progress: Progress,
    ) -> tuple[ItemRow, ...]:
        found = self._read(stack)
        progress(stack, len(items), len(items))
        return tuple(
            self._row(item, found.get(item.item, ABSENT), stack, seed, repeat) for item in items
        )

    def _read(self, stack: str) -> dict[str, FoundResult]:
        """By item. Raises WorldError for a file that is not whole, not of this harness, or has an item twice."""
        path = self.folder / stack / self.spec.file
        by_item: dict[str, FoundResult] = {}
        for one in READERS[self.spec.format](path, self.spec):
            if one.item in by_item:
                raise WorldError(f"the item {one.item} is there twice", where=str(path))
            by_item[one.item] = one
        if not by_item:
            raise WorldError("the file has no results", where=str(path))
        return by_item

    def _row(self, item: Item, found: FoundResult, stack: str, seed: int, repeat: int) -> ItemRow:
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
