"""The logit pre-gate: from traces to a verdict, a pure function.

Judged in this order: invalid (nothing trustworthy to compare), fail, warn, pass. A fault of the
candidate (a request that failed, NaN, an infinity, -9999) always fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pipeline.gate.divergence import compare
from pipeline.logit_policy import LogitLimits, LogitProfile
from pipeline.results import ListFaults, LogitComparison, LogitFloor, LogitVerdict
from pipeline.traces import PassName, ReferenceTrace, Trace

PASSES: tuple[PassName, ...] = (
    "prefill together",
    "prefill alone",
    "decode together",
    "decode alone",
)
Level = Literal["warn", "fail"]
Reason = tuple[Level, str]


def judge_logits(reference: ReferenceTrace, candidate: Trace, limits: LogitLimits) -> LogitVerdict:
    """The verdict on `candidate`; it never raises for what the traces hold."""
    ours, profile = reference.trace, reference.profile
    floor = measured_floor(ours, limits)
    comparisons = tuple(
        compare(name, ours.passes.get(name, ()), candidate.passes.get(name, ())) for name in PASSES
    )
    faults = (
        *_reference_faults(reference, floor, limits),
        *_trace_faults(reference, candidate, comparisons),
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


def measured_floor(reference: Trace, limits: LogitLimits) -> LogitFloor:
    """What another batch composition alone does to the reference, but no less than the minima."""
    prefill = _against_itself(reference, "prefill together", "prefill alone")
    decode = _against_itself(reference, "decode together", "decode alone")
    # A percentile of few positions is a maximum; the floor takes it only where it would be judged.
    p99 = [row.kl_p99 for row in (prefill, decode) if row.positions >= limits.p99_positions]
    return LogitFloor(
        prefill=prefill,
        decode=decode,
        mean=max(limits.floor_mean, prefill.kl_mean or 0, decode.kl_mean or 0),
        p99=max([limits.floor_p99, *(value for value in p99 if value is not None)]),
    )


def _against_itself(reference: Trace, together: PassName, alone: PassName) -> LogitComparison:
    return compare(together, reference.passes.get(together, ()), reference.passes.get(alone, ()))


def _reference_faults(
    reference: ReferenceTrace, floor: LogitFloor, limits: LogitLimits
) -> Iterator[str]:
    stack = reference.trace.stack
    for row in (floor.prefill, floor.decode):
        # In a floor both sides are the reference.
        for faults in (row.reference_faults, row.candidate_faults):
            if faults.total:
                yield f"{stack} itself is unsound in {row.name}: {_faults(faults)}"
    widest = max(floor.prefill.widest_margin or 0, floor.decode.widest_margin or 0)
    if floor.mean > limits.largest_floor_mean or floor.p99 > limits.largest_floor_p99:
        yield (
            f"{stack} differs from itself in another batch: mean KL {floor.mean:.1e}, "
            f"p99 {floor.p99:.1e}"
        )
    if widest > limits.fail_margin:
        yield f"{stack} contradicts itself in another batch with a margin of {widest:.2f} nat"


def _trace_faults(
    reference: ReferenceTrace, candidate: Trace, comparisons: Sequence[LogitComparison]
) -> Iterator[str]:
    profile, ours = reference.profile, reference.trace
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
        if level := _level(margin, warn=limits.warn_margin, fail=limits.fail_margin):
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
