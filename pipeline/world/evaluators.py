"""All evaluators as one: each benchmark's items go to whoever asks them, and the rows come back in the items' order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.accuracy_result import ItemRow
from pipeline.errors import WorldError
from pipeline.world.answers import Evaluator
from pipeline.world.benchmark_data import Item
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress, RunPrograms, evaluate


@dataclass(frozen=True, kw_only=True)
class Builtins:
    """`evaluate`, told where the programs of its answers may run."""

    run_programs: RunPrograms

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
    ) -> tuple[ItemRow, ...]:
        return evaluate(
            endpoint,
            items,
            stack=stack,
            concurrency=concurrency,
            seed=seed,
            repeat=repeat,
            temperature=temperature,
            progress=progress,
            run_programs=self.run_programs,
        )


@dataclass(frozen=True, kw_only=True)
class Evaluators:
    """What the accuracy stage is given as its evaluator. Benchmarks that nobody is named for are the builtin's."""

    others: Mapping[str, Evaluator] = field(default_factory=dict)
    builtin: Evaluator = evaluate

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
    ) -> tuple[ItemRow, ...]:
        found: dict[tuple[str, str], ItemRow] = {}
        for ask, group in self._groups(items):
            answered = ask(
                endpoint,
                group,
                stack=stack,
                concurrency=concurrency,
                seed=seed,
                repeat=repeat,
                temperature=temperature,
                progress=_later(progress, len(found), len(items)),
            )
            found |= {(row.benchmark, row.item): row for row in answered}
        missing = [item for item in items if (item.benchmark, item.item) not in found]
        if missing:
            raise WorldError(
                f"an evaluator gave no row for {len(missing)} items",
                where=f"{missing[0].benchmark}/{missing[0].item}",
            )
        return tuple(found[item.benchmark, item.item] for item in items)

    def _groups(self, items: Sequence[Item]) -> list[tuple[Evaluator, list[Item]]]:
        """All of the builtin's in one go; every other benchmark by itself."""
        builtin = [item for item in items if item.benchmark not in self.others]
        groups = [(self.builtin, builtin)] if builtin else []
        for name, ask in self.others.items():
            group = [item for item in items if item.benchmark == name]
            groups += [(ask, group)] if group else []
        return groups


def _later(progress: Progress, before: int, total: int) -> Progress:
    """Progress of one group as progress of all."""
    return lambda stack, done, _: progress(stack, before + done, total)
