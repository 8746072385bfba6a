"""The logit pre-gate: from traces to a verdict, a pure function.

Judged in this order: invalid (nothing trustworthy to compare), fail, warn, pass. A fault of the
candidate (a request that failed, NaN, an infinity, -9999) always fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pipeline.accuracy_result import ListFaults, LogitComparison, LogitFloor, LogitVerdict
from pipeline.gate.divergence import compare
from pipeline.logit_policy import LogitLimits, LogitProfile
from pipeline.traces import PassName, ReferenceTrace, Trace

PASSES: tuple[PassName, ...] = (
    "prefill together",
    "prefill alone",
    "decode together",
    "decode alone",
)
Level = Literal["warn", "fail"]
Reason = tuple[Level, str]


def judge_logits(
    reference: ReferenceTrace,
    candidate: Trace,
    limits: LogitLimits,
    legitimate: Sequence[Trace] = (),
) -> LogitVerdict:
    """The verdict on `candidate`; it never raises for what the traces hold.

    `legitimate` are other stacks that the policy calls right, say the engine's own kernels in the
    candidate's dtype; as far from the reference as they are, a candidate may be.
    """
    ours, profile = reference.trace, reference.profile
    floor = measured_floor(ours, legitimate, limits)
    comparisons = _compared(ours, candidate)
    faults = (
        *_floor_faults(ours.stack, floor, limits),
        *_trace_faults(reference, candidate, floor, comparisons),
    )
    reasons = () if faults else tuple(_reasons(comparisons, floor, profile, limits))
    status: Literal["pass", "warn", "fail", "invalid"] = "pass"
    if faults:
        status = "invalid"
    elif reasons:
        status = "fail" if any(level == "fail" for level, _ in reasons) else "warn"
    told = tuple(text for level, text in reasons if level == status) or faults
    return LogitVerdict(
        status=status,
        sentence=f"{status}: "
        + _sentence(status, told, comparisons, floor, stacks=(ours.stack, candidate.stack)),
        reasons=(*faults, *(f"{level}: {text}" for level, text in reasons)),
        reference=ours.stack,
        candidate=candidate.stack,
        profile=profile,
        limits=limits,
        floor=floor,
        comparisons=comparisons,
        seconds=_seconds(ours, candidate),
    )


def measured_floor(
    reference: Trace, legitimate: Sequence[Trace], limits: LogitLimits
) -> LogitFloor:
    """What another batch composition alone, or a legitimate stack, does to the reference."""
    passes = reference.passes
    itself = (
        compare(
            "prefill together", passes.get("prefill together", ()), passes.get("prefill alone", ())
        ),
        compare(
            "decode together", passes.get("decode together", ()), passes.get("decode alone", ())
        ),
    )
    stacks = {trace.stack: _compared(reference, trace) for trace in legitimate}
    rows = [*itself, *(row for found in stacks.values() for row in found)]
    return LogitFloor(
        itself=itself,
        legitimate=stacks,
        mean=max([limits.floor_mean, *(row.kl_mean or 0 for row in rows)]),
        # Taken only where it would be judged.
        p99=max(
            [
                limits.floor_p99,
                *(row.kl_p99 or 0 for row in rows if row.positions >= limits.p99_positions),
            ]
        ),
        margin=max(row.widest_margin or 0 for row in rows),
    )


def _compared(reference: Trace, other: Trace) -> tuple[LogitComparison, ...]:
    return tuple(
        compare(name, reference.passes.get(name, ()), other.passes.get(name, ())) for name in PASSES
    )


def _floor_faults(reference: str, floor: LogitFloor, limits: LogitLimits) -> Iterator[str]:
    """Why this floor measures no legitimate noise."""
    for row in floor.itself:
        # Both sides are the reference.
        for faults in (row.reference_faults, row.candidate_faults):
            if faults.total:
                yield f"{reference} itself is unsound in {row.name}: {_faults(faults)}"
    for stack, rows in floor.legitimate.items():
        for row in rows:
            if row.candidate_faults.total:
                yield f"{stack} is unsound in {row.name}: {_faults(row.candidate_faults)}"
    measured = [
        ("mean KL", floor.mean, limits.largest_floor_mean),
        ("p99 KL", floor.p99, limits.largest_floor_p99),
        ("margin", floor.margin, limits.fail_margin),
    ]
    sources = ", ".join([f"{reference} in another batch", *floor.legitimate])
    for label, value, most in measured:
        if value > most:
            yield (
                f"the floor is no noise: {label} {value:.1e} between {reference} and {sources}, "
                f"at most {most:.1e} is believed"
            )


def _trace_faults(
    reference: ReferenceTrace,
    candidate: Trace,
    floor: LogitFloor,
    comparisons: Sequence[LogitComparison],
) -> Iterator[str]:
    profile, ours = reference.profile, reference.trace
    if candidate.stack in floor.legitimate:
        yield f"{candidate.stack} cannot define the floor it is judged by"
    alone = {"prefill alone": profile.scored_alone, "decode alone": profile.decoded_alone}
    due = {"prefill together": profile.prompts, "decode together": profile.answered, **alone}
    for row in comparisons:
        if row.texts < due[row.name]:
            yield f"{row.name} holds {row.texts} texts, the profile asks for {due[row.name]}"
    other = sum(
        1
        for one, two in zip(ours.texts, candidate.texts, strict=False)
        if one and two and one != two
    )
    if other:
        yield f"the stacks have other token ids for {other} of {len(ours.texts)} texts"
    scored = sum(lists.positions for lists in ours.passes.get("prefill together", ()))
    if scored < profile.min_positions:
        yield f"{scored} positions were scored, the profile asks for {profile.min_positions}"


def _reasons(
    comparisons: Sequence[LogitComparison],
    floor: LogitFloor,
    profile: LogitProfile,
    limits: LogitLimits,
) -> Iterator[Reason]:
    for row in comparisons:
        where = _where(row, profile)
        if row.candidate_faults.total:
            yield "fail", f"{_faults(row.candidate_faults)} in {where}"
        elif not row.positions:
            yield "fail", f"nothing to compare in {where}"
        measured = [
            ("mean KL", row.kl_mean, floor.mean, limits.fail_mean),
            ("p99 KL", row.kl_p99, floor.p99, limits.fail_p99),
        ]
        for label, value, noise, least in measured:
            judged = label == "mean KL" or row.positions >= limits.p99_positions
            if value is None or not judged:
                continue
            level = _level(
                value, warn=limits.warn_ratio * noise, fail=max(limits.fail_ratio * noise, least)
            )
            if level:
                yield (
                    level,
                    f"{label} {value:.1e} in {where} is {value / noise:.1f} times the floor",
                )
        margin = row.widest_margin or 0
        if level := _level(
            margin,
            warn=max(limits.warn_ratio * floor.margin, limits.warn_margin),
            fail=max(limits.fail_ratio * floor.margin, limits.fail_margin),
        ):
            yield level, f"another first token in {where} against a margin of {margin:.2f} nat"


def _level(value: float, *, warn: float, fail: float) -> Level | None:
    return "fail" if value > fail else "warn" if value > warn else None


def _sentence(
    status: str,
    told: Sequence[str],
    comparisons: Sequence[LogitComparison],
    floor: LogitFloor,
    *,
    stacks: tuple[str, str],
) -> str:
    reference, candidate = stacks
    if status == "invalid":
        return f"log-probabilities cannot be compared: {told[0]}{_more(told)}"
    if status == "fail":
        return f"{candidate} does not compute what {reference} computes: {told[0]}{_more(told)}"
    if status == "warn":
        return (
            f"{candidate} is further from {reference} than noise explains: {told[0]}{_more(told)}; "
            f"the paired gate repeats, and the operator is to be found"
        )
    prefill = comparisons[0]
    margins = [row.widest_margin for row in comparisons if row.widest_margin is not None]
    widest = f", widest margin {max(margins):.2f} nat" if margins else ""
    return (
        f"{candidate} gives the next-token probabilities of {reference} ({prefill.texts} texts, "
        f"{prefill.positions} positions: mean KL {prefill.kl_mean or 0:.1e}, floor {floor.mean:.1e}; "
        f"{sum(row.mismatches for row in comparisons)} other first tokens{widest})"
    )


def _where(row: LogitComparison, profile: LogitProfile) -> str:
    kind, _, together = row.name.partition(" ")
    return f"{kind} at batch {profile.batch if together == 'together' else 1}"


def _faults(faults: ListFaults) -> str:
    counts = {
        "failed requests": faults.failed,
        "NaN": faults.nan,
        "infinities": faults.infinite,
        "values of -9999": faults.sentinel,
        "impossible lists": faults.impossible,
    }
    named = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{named} ({faults.first_error})" if faults.first_error else named


def _more(told: Sequence[str]) -> str:
    return f" (and {len(told) - 1} more)" if len(told) > 1 else ""


def _seconds(reference: Trace, candidate: Trace) -> Mapping[str, float]:
    return {
        f"{role} {name}": seconds
        for role, trace in (("reference", reference), ("candidate", candidate))
        for name, seconds in trace.seconds.items()
    }
