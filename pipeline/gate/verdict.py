"""From rows to the verdict on one candidate: a pure function, for one look at right-or-wrong items.

Judged in this order: invalid (the stacks cannot be compared), fail (R1: harm is shown),
inconclusive (R2: a loss beyond a margin is not ruled out; or no benchmark could show one), pass.
A failed item scores 0 and stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from pipeline.gate.paired import (
    has_power,
    holm_rejections,
    mcnemar_harm,
    tango_lower_bound,
    tango_upper_bound,
    z_of,
)
from pipeline.gate.validity import policy_faults, row_faults
from pipeline.results import BenchmarkVerdict, ItemRow, Verdict

Decision = tuple[Literal["pass", "fail", "inconclusive"], str]


def judge(
    rows: Sequence[ItemRow],
    *,
    reference: str,
    candidate: str,
    margins: Mapping[str, float],
    chance: Mapping[str, float],
    alpha: float,
    power_margins: float,
) -> Verdict:
    """The verdict on `candidate`; `margins` names every benchmark, `chance` the scores of guessing.

    Rows of other stacks are left out. It never raises for what the rows hold: what cannot be
    compared is invalid.
    """
    stacks = (reference, candidate)
    compared = [row for row in rows if row.stack in stacks]
    faults = (
        *policy_faults(stacks, margins, chance, alpha),
        *row_faults(compared, stacks, margins),
    )
    benchmarks: tuple[BenchmarkVerdict, ...] = ()
    status: Literal["pass", "fail", "inconclusive", "invalid"] = "invalid"
    why = _invalid_sentence(faults)
    if not faults:
        counted = [
            _statistics(
                [row for row in compared if row.benchmark == name],
                stacks,
                margin=margins[name],
                chance=chance[name],
                alpha=alpha,
                power_margins=power_margins,
            )
            for name in margins
        ]
        benchmarks = _with_statuses(counted, alpha)
        status, why = _decide(benchmarks, reference, candidate)
        why += _footnotes(benchmarks, reference, candidate)
    return Verdict(
        status=status,
        sentence=f"{status}: {why}",
        reference=reference,
        candidate=candidate,
        alpha=alpha,
        power_margins=power_margins,
        items=len({(row.benchmark, row.item) for row in compared}),
        benchmarks=benchmarks,
        faults=faults,
    )


def _is_right(row: ItemRow) -> bool:
    return not row.error and row.score == 1


def _statistics(
    rows: Sequence[ItemRow],
    stacks: tuple[str, str],
    *,
    margin: float,
    chance: float,
    alpha: float,
    power_margins: float,
) -> BenchmarkVerdict:
    """Everything of one benchmark but its status, which needs the other benchmarks (Holm)."""
    reference, candidate = (
        {row.item: row for row in rows if row.stack == stack} for stack in stacks
    )
    marks = Counter((_is_right(reference[item]), _is_right(candidate[item])) for item in reference)
    n, lost, gained = len(reference), marks[True, False], marks[False, True]
    right = marks[True, True] + lost
    z = z_of(alpha)
    return BenchmarkVerdict(
        benchmark=rows[0].benchmark,
        n=n,
        reference_score=right / n,
        candidate_score=(right - lost + gained) / n,
        lost=lost,
        gained=gained,
        flip_share=(lost + gained) / n,
        difference=(gained - lost) / n,
        lower_bound=tango_lower_bound(lost, gained, n, z),
        upper_bound=tango_upper_bound(lost, gained, n, z),
        margin=margin,
        p_harm=mcnemar_harm(lost, gained),
        chance=chance,
        has_power=has_power(
            right, n, chance=chance, margin=margin, power_margins=power_margins, alpha=alpha
        ),
        errors_reference=sum(1 for row in reference.values() if row.error),
        errors_candidate=sum(1 for row in candidate.values() if row.error),
        status="inconclusive",
    )


def _with_statuses(rows: Sequence[BenchmarkVerdict], alpha: float) -> tuple[BenchmarkVerdict, ...]:
    harmed = holm_rejections([row.p_harm for row in rows], alpha)
    return tuple(_with_status(row, is_harmed) for row, is_harmed in zip(rows, harmed, strict=True))


def _with_status(row: BenchmarkVerdict, is_harmed: bool) -> BenchmarkVerdict:
    if is_harmed:
        return row.model_copy(update={"status": "fail"})
    if _is_non_inferior(row) and _is_answered(row) and row.has_power:
        return row.model_copy(update={"status": "pass"})
    return row


def _is_non_inferior(row: BenchmarkVerdict) -> bool:
    return row.lower_bound > -row.margin


def _is_answered(row: BenchmarkVerdict) -> bool:
    # Else a candidate that answers nothing would pass where the reference scores next to nothing.
    return max(row.errors_reference, row.errors_candidate) <= row.margin * row.n


def _decide(rows: Sequence[BenchmarkVerdict], reference: str, candidate: str) -> Decision:
    if harmed := [row for row in rows if row.status == "fail"]:
        found = "; ".join(
            f"{row.benchmark}: {_points(row.candidate_score)} for {_points(row.reference_score)}, "
            f"{_flips(row)}, p = {row.p_harm:.2g}"
            for row in harmed
        )
        return "fail", f"{candidate} is worse than {reference} ({found})"
    if open_rows := [row for row in rows if not _is_non_inferior(row)]:
        found = "; ".join(
            f"{row.benchmark}: loss bound {_points(row.lower_bound)}, "
            f"margin {_points(row.margin)}, {_flips(row)}"
            for row in open_rows
        )
        return "inconclusive", (
            f"{candidate} may be worse than {reference} by more than the margin ({found}); "
            f"more items would decide"
        )
    if unanswered := [row for row in rows if not _is_answered(row)]:
        names = ", ".join(row.benchmark for row in unanswered)
        return "inconclusive", f"too many requests failed for a comparison on {names}"
    if not any(row.has_power for row in rows):
        found = "; ".join(
            f"{row.benchmark}: {_points(row.reference_score)}, guessing {_points(row.chance)}, "
            f"margin {_points(row.margin)}"
            for row in rows
        )
        return "inconclusive", (
            f"{reference} scores too near to guessing for a loss to show on any benchmark ({found})"
        )
    widest = min(rows, key=lambda row: row.lower_bound)
    return "pass", (
        f"{candidate} is not worse than {reference} by more than {_margins(rows)} points on "
        f"{_benchmarks(rows)} ({sum(row.n for row in rows)} items; widest loss bound "
        f"{_points(widest.lower_bound)} on {widest.benchmark})"
    )


def _footnotes(rows: Sequence[BenchmarkVerdict], reference: str, candidate: str) -> str:
    notes = ""
    if powerless := [row.benchmark for row in rows if not row.has_power]:
        notes += f"; no power: {', '.join(powerless)}"
    failed = [sum(row.errors_reference for row in rows), sum(row.errors_candidate for row in rows)]
    if any(failed):
        notes += f"; failed requests: {failed[0]} of {reference}, {failed[1]} of {candidate}"
    return notes


def _invalid_sentence(faults: Sequence[str]) -> str:
    more = f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else ""
    return f"the stacks cannot be compared: {faults[0]}{more}" if faults else ""


def _points(share: float) -> str:
    return f"{100 * share:z.1f}"


def _flips(row: BenchmarkVerdict) -> str:
    return f"{row.lost} items lost and {row.gained} gained of {row.n}"


def _margins(rows: Sequence[BenchmarkVerdict]) -> str:
    lowest, highest = min(row.margin for row in rows), max(row.margin for row in rows)
    return _points(lowest) if lowest == highest else f"{_points(lowest)} to {_points(highest)}"


def _benchmarks(rows: Sequence[BenchmarkVerdict]) -> str:
    return rows[0].benchmark if len(rows) == 1 else f"any of {len(rows)} benchmarks"
