"""What somebody else asked: whether both stacks were asked alike, and whether anybody knows that it was they. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.accuracy_result import ItemRow
from pipeline.gate.validity import condition_faults, row_faults
from pipeline.policy import Gate
from pipeline.result_source import ImportedRuns


def import_faults(imported: Mapping[str, ImportedRuns], stacks: tuple[str, str]) -> Iterator[str]:
    """Settings under which somebody else asked the two stacks differently, or one stack from run to run."""
    for name, one in imported.items():
        runs = [
            (f"{stack}, run {run}", source.settings)
            for stack in stacks
            for run, source in enumerate(one.sources.get(stack, ()), start=1)
        ]
        for other, settings in runs[1:] if not one.doubts else ():
            first = runs[0][0]
            for fault in condition_faults({first: runs[0][1], other: settings}, (first, other)):
                yield f"{name}: {fault}"


@dataclass(frozen=True, kw_only=True)
class Doubted:
    """Imported benchmarks of which nobody knows what answered: shown where that can be, and never more."""

    names: tuple[str, ...]
    unfit: tuple[str, ...]  # of them: rows that could not even be shown side by side
    sentences: tuple[str, ...]

    @classmethod
    def among(
        cls,
        imported: Mapping[str, ImportedRuns],
        rows: Sequence[ItemRow],
        stacks: tuple[str, str],
        gate: Gate,
    ) -> Doubted:
        names = tuple(name for name, one in imported.items() if one.doubts)
        faults = {
            name: tuple(
                row_faults(
                    [row for row in rows if row.benchmark == name],
                    stacks,
                    [name],
                    gate.unusable_excess,
                )
            )
            for name in names
        }
        return cls(
            names=names,
            unfit=tuple(name for name, found in faults.items() if found),
            sentences=tuple(
                sentence
                for name in names
                for sentence in _sentences(name, imported[name].doubts, faults[name])
            ),
        )


def _sentences(name: str, doubts: Sequence[str], faults: Sequence[str]) -> Iterable[str]:
    """Why an imported benchmark decides nothing, and why it is not even shown."""
    more = f" (and {len(doubts) - 1} more reasons)" if len(doubts) > 1 else ""
    yield f"{name} (advisory): imported, and decides nothing: {doubts[0]}{more}"
    if faults:
        yield f"{name} (advisory): not shown: {faults[0]}"
