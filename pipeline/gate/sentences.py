"""The words of a verdict: one sentence a release engineer understands, and warnings with reasons. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.accuracy_result import BenchmarkVerdict, PooledVerdict
from pipeline.gate.limits import Limits
from pipeline.gate.looks import Look


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Imported benchmarks that cannot be asked again: more result files would have to be brought."""

    runs: int  # result files of each stack that would be judged next
    files: Mapping[str, str]  # where the next one goes, by benchmark


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What sentences are made of."""

    stacks: tuple[str, str]
    rows: tuple[BenchmarkVerdict, ...]
    limits: Limits
    look: Look
    waiting: Waiting | None = None

    @property
    def critical(self) -> tuple[BenchmarkVerdict, ...]:
        return tuple(row for row in self.rows if row.tier == "critical")

    @property
    def open(self) -> tuple[BenchmarkVerdict, ...]:
        """Those on which a loss of the margin is not ruled out and must be."""
        marks = self.look.is_deciding & ~self.look.is_within
        return tuple(row for row, is_open in zip(self.rows, marks, strict=True) if is_open)

    @property
    def deciding(self) -> tuple[BenchmarkVerdict, ...]:
        return tuple(row for row in self.critical if row.has_power)


def invalid_sentence(faults: Sequence[str]) -> str:
    more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
    return f"invalid: the stacks cannot be compared: {faults[0]}{more}" if faults else ""


def pass_sentence(tables: Tables, pooled: PooledVerdict | None) -> str:
    rows = tables.deciding
    widest = min(rows, key=lambda row: row.lower_bound)
    where = rows[0].benchmark if len(rows) == 1 else f"any of {len(rows)} benchmarks"
    sure = f"widest loss bound {_points(widest.lower_bound)} on {widest.benchmark}"
    if pooled and pooled.margin is not None:
        sure += (
            f", {_points(pooled.lower_bound)} over all with a margin of {_points(pooled.margin)}"
        )
    runs = max(row.runs for row in rows)
    asked = f"{sum(row.n for row in rows)} items" + (
        f", up to {runs} runs each" if runs > 1 else ""
    )
    return (
        f"{tables.stacks[1]} is not worse than {tables.stacks[0]} by more than {_margins(rows)} points "
        f"on {where} ({asked}; {sure})"
    )


def harm_sentence(tables: Tables) -> str:
    if harmed := [row for row in tables.rows if row.status == "fail"]:
        found = "; ".join(
            f"{row.benchmark}: {_points(row.candidate_score)} for {_points(row.reference_score)}, "
            f"{_flips(row)}, p = {row.p_harm:.2g}"
            for row in harmed
        )
        return f"{tables.stacks[1]} is worse than {tables.stacks[0]} ({found})"
    return f"{tables.stacks[1]} answers in another way ({'; '.join(tables.limits.shown)})"


def gain_sentence(tables: Tables) -> str:
    found = "; ".join(
        f"{row.benchmark}: {_points(row.candidate_score)} for {_points(row.reference_score)}, "
        f"{_flips(row)}"
        for row in tables.critical
        if row.lower_bound > row.margin
    )
    return (
        f"{tables.stacks[1]} is better than {tables.stacks[0]} by more than the margin ({found}), which "
        f"equal weights do not explain; look for a damaged reference or a mask that lets answers through"
    )


def inconclusive_sentence(
    tables: Tables, pooled: PooledVerdict | None, next_runs: int | None
) -> str:
    more = _more(tables.waiting, next_runs)
    reference, candidate = tables.stacks
    if open_rows := tables.open:
        found = "; ".join(
            f"{row.benchmark}: loss bound {_points(row.lower_bound)}, "
            f"margin {_points(row.margin)}, {_flips(row)}"
            for row in open_rows
        )
        return f"{candidate} may be worse than {reference} by more than the margin ({found}){more}"
    if tables.limits.blocking:
        return f"too many requests failed for a comparison ({'; '.join(tables.limits.blocking)})"
    if not tables.deciding:
        return _powerless(tables.critical, reference)
    if pooled and pooled.margin is not None and pooled.lower_bound <= -pooled.margin:
        return (
            f"{candidate} may be worse than {reference} by more than the margin over all items (loss "
            f"bound {_points(pooled.lower_bound)}, margin {_points(pooled.margin)}){more}"
        )
    return (
        f"{candidate} is within every margin so far, but an earlier check asks for more runs{more}"
    )


def _more(waiting: Waiting | None, next_runs: int | None) -> str:
    if waiting:
        files = ", ".join(f"{name}: {file}" for name, file in waiting.files.items())
        return (
            f"; imported results cannot be asked again: judged again with {waiting.runs} result files of "
            f"each stack (the next one is {files})"
        )
    return f"; judged again after {next_runs} runs" if next_runs else "; more items would decide"


def nothing_decides() -> str:
    return "no benchmark of the policy decides, all are advisory"


def _powerless(rows: Sequence[BenchmarkVerdict], reference: str) -> str:
    if not rows:
        return nothing_decides()
    found = "; ".join(
        f"{row.benchmark}: {_points(row.reference_score)}, guessing {_points(row.chance)}, "
        f"margin {_points(row.margin)}"
        for row in rows
    )
    return f"{reference} scores too near to guessing for a loss to show on any benchmark ({found})"


def notes(tables: Tables) -> str:
    """What else must not be overlooked, at the end of every sentence but the invalid one."""
    text = ""
    if powerless := [row.benchmark for row in tables.critical if not row.has_power]:
        text += f"; no power: {', '.join(powerless)}"
    failed = [
        sum(row.errors_reference for row in tables.rows),
        sum(row.errors_candidate for row in tables.rows),
    ]
    if any(failed):
        text += f"; failed requests: {failed[0]} of {tables.stacks[0]}, {failed[1]} of {tables.stacks[1]}"
    return text


def warnings_of(tables: Tables) -> tuple[str, ...]:
    return (*_warnings(tables), *tables.limits.warnings)


def _warnings(tables: Tables) -> Iterable[str]:
    reference, candidate = tables.stacks
    for row, is_gained in zip(tables.rows, tables.look.is_gained, strict=True):
        if is_gained:
            yield (
                f"{row.benchmark}: {candidate} is better than {reference} beyond chance "
                f"({_flips(row)}, p = {row.p_gain:.2g}); some faults raise a score, so look why"
            )
        if row.tier == "advisory" and row.upper_bound < 0:
            yield f"{row.benchmark} (advisory): {candidate} is worse than {reference} ({_flips(row)})"
        if row.errors_reference:
            yield (
                f"{row.benchmark}: {row.errors_reference} requests of {reference} failed and are counted "
                f"against {candidate}"
            )


def _points(share: float) -> str:
    return f"{100 * share:z.1f}"


def _flips(row: BenchmarkVerdict) -> str:
    runs = f" in {row.runs} runs" if row.runs > 1 else ""
    return f"{row.lost} items lost and {row.gained} gained of {row.n}{runs}"


def _margins(rows: Sequence[BenchmarkVerdict]) -> str:
    lowest, highest = min(row.margin for row in rows), max(row.margin for row in rows)
    return _points(lowest) if lowest == highest else f"{_points(lowest)} to {_points(highest)}"
