"""From rows to the verdict on one candidate: a pure function of rows and policy.

Looks are taken in the order of the policy. At each is judged: fail (harm is shown, or a limit is
broken beyond chance), pass, or open; open benchmarks are looked at again with more runs, where
their rows are there. What cannot be compared at all is invalid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.gate.evidence import Evidence
from pipeline.gate.limits import Limits, check_limits
from pipeline.gate.looks import Look, Rule, look_at, rule_of
from pipeline.gate.operators import operator_faults
from pipeline.gate.pairing import Pairs, pair
from pipeline.gate.sentences import (
    Tables,
    gain_sentence,
    harm_sentence,
    inconclusive_sentence,
    invalid_sentence,
    notes,
    pass_sentence,
    warnings_of,
)
from pipeline.gate.validity import Conditions, condition_faults, policy_faults, row_faults
from pipeline.operator_evidence import StackOperators
from pipeline.policy import Gate, policy_sha256
from pipeline.results import AccuracyResult, BenchmarkVerdict, ItemRow, PooledVerdict, Verdict

Status = Literal["pass", "fail", "inconclusive", "invalid"]


def judge(
    rows: Sequence[ItemRow],
    *,
    reference: str,
    candidate: str,
    gate: Gate,
    chance: Mapping[str, float],
    generated: Collection[str] = (),
    conditions: Conditions | None = None,
    operators: Mapping[str, StackOperators] | None = None,
    least_runs: int = 1,
) -> Verdict:
    """The verdict on `candidate`; `chance` names every benchmark, with the score of guessing.

    `generated` names the benchmarks whose answers are written, not chosen. No pass before
    `least_runs` runs (an earlier check warned). `operators`: those that each stack ran with. Rows of
    other stacks are left out. It never raises for what the rows hold: what cannot be compared is
    invalid.
    """
    stacks = (reference, candidate)
    compared = [row for row in rows if row.stack in stacks]
    faults = (
        *policy_faults(stacks, gate, chance),
        *condition_faults(conditions or {}, stacks),
        *operator_faults(operators, stacks),
        *row_faults(compared, stacks, chance, gate.unusable_excess),
    )
    verdict = Verdict(
        status="invalid",
        sentence=invalid_sentence(faults),
        reference=reference,
        candidate=candidate,
        alpha=gate.alpha,
        power_margins=gate.power_margins,
        items=len({(row.benchmark, row.item) for row in compared}),
        benchmarks=(),
        faults=faults,
        policy_sha256=policy_sha256(gate, chance),
    )
    if faults:
        return verdict
    rule = rule_of(gate, chance)
    pairs = tuple(
        pair(
            [row for row in compared if row.benchmark == name],
            stacks,
            is_generated=name in generated,
        )
        for name in chance
    )
    ended = _take_looks(pairs, rule, gate, stacks, min(least_runs, gate.looks[-1]))
    tables = Tables(
        stacks=stacks,
        rows=_tables(pairs, ended, rule, chance),
        limits=ended.limits,
        look=ended.look,
    )
    pooled = _pooled(ended, tables, gate)
    status, why = _decided(ended, tables, pooled)
    return verdict.model_copy(
        update={
            "status": status,
            "sentence": f"{status}: {why}{notes(tables)}",
            "alpha": rule.level,
            "harm_alpha": rule.harm_level,
            "benchmarks": tables.rows,
            "warnings": warnings_of(tables),
            "pooled": pooled,
            "runs": max(ended.runs.values()),
            "next_runs": ended.next_runs,
            "undecided": ended.undecided,
        }
    )


def judge_again(result: AccuracyResult, rows: Sequence[ItemRow], gate: Gate) -> Verdict:
    """The verdict that the rows of a result have under a policy: nothing is asked."""
    return judge(
        rows,
        reference=result.verdict.reference,
        candidate=result.verdict.candidate,
        gate=gate,
        chance=result.chance,
        generated=result.generated,
        conditions=result.conditions,
        operators=result.operators,
        least_runs=result.least_runs,
    )


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Where the looks ended, and with what."""

    status: Literal["pass", "fail", "open", "gain"]
    look: Look
    evidence: Evidence
    limits: Limits
    runs: Mapping[str, int]  # used of each benchmark
    next_runs: int | None = None
    undecided: tuple[str, ...] = ()


def _take_looks(
    pairs: Sequence[Pairs],
    rule: Rule,
    gate: Gate,
    stacks: tuple[str, str],
    least_runs: int,
) -> Ended:
    ended: Ended | None = None
    undecided = tuple(one.benchmark for one in pairs)
    runs = {one.benchmark: min(one.runs, gate.looks[0]) for one in pairs}
    for look in gate.looks:
        if any(one.runs < look for one in pairs if one.benchmark in undecided):
            ended = ended or _look(pairs, runs, rule, gate, stacks)
            return replace(ended, status="open", next_runs=look, undecided=undecided)
        runs |= dict.fromkeys(undecided, look)
        ended = _look(pairs, runs, rule, gate, stacks)
        if ended.status == "pass" and look < least_runs:
            ended = replace(ended, status="open")
        if ended.status != "open":
            return ended
        undecided = _open_benchmarks(pairs, ended.look)
        if not undecided:
            break
    return ended if ended else _look(pairs, runs, rule, gate, stacks)


def _look(
    pairs: Sequence[Pairs],
    runs: Mapping[str, int],
    rule: Rule,
    gate: Gate,
    stacks: tuple[str, str],
) -> Ended:
    evidence = Evidence.joined([one.evidence(runs[one.benchmark]) for one in pairs])
    look = look_at(evidence, rule)
    critical = [
        one for one, is_critical in zip(pairs, rule.is_critical, strict=True) if is_critical
    ]
    limits = check_limits(critical, runs, stacks, gate, rule.level)
    status: Literal["pass", "fail", "open", "gain"] = "open"
    if look.failed or limits.shown:
        status = "fail"
    elif look.is_beyond.any():
        status = "gain"
    elif look.passed and not limits.blocking:
        status = "pass"
    return Ended(status=status, look=look, evidence=evidence, limits=limits, runs=dict(runs))


def _open_benchmarks(pairs: Sequence[Pairs], look: Look) -> tuple[str, ...]:
    """Which more runs could decide; all that decide where each for itself is settled already."""
    chosen = look.is_open if look.is_open.any() else look.is_deciding
    return tuple(one.benchmark for one, is_open in zip(pairs, chosen, strict=True) if is_open)


def _tables(
    pairs: Sequence[Pairs], ended: Ended, rule: Rule, chance: Mapping[str, float]
) -> tuple[BenchmarkVerdict, ...]:
    return tuple(
        _table(index, one, ended, bool(rule.is_critical[index]), chance[one.benchmark])
        for index, one in enumerate(pairs)
    )


def _table(
    index: int, pairs: Pairs, ended: Ended, is_critical: bool, chance: float
) -> BenchmarkVerdict:
    look, runs = ended.look, ended.runs[pairs.benchmark]
    n, groups = len(pairs.clusters), len(set(pairs.clusters))
    lost, gained = int(ended.evidence.lost[index]), int(ended.evidence.gained[index])
    reference, candidate = (side.troubles(runs) for side in (pairs.reference, pairs.candidate))
    status: Literal["pass", "fail", "inconclusive"] = "inconclusive"
    if look.is_harmed[index]:
        status = "fail"
    elif look.is_within[index] and look.has_power[index] and not look.is_beyond[index]:
        status = "pass"
    return BenchmarkVerdict(
        benchmark=pairs.benchmark,
        n=n,
        reference_score=float(ended.evidence.reference[index]),
        candidate_score=float(pairs.candidate.scores[:, :runs].mean()),
        lost=lost,
        gained=gained,
        flip_share=(lost + gained) / (n * runs),
        difference=float(ended.evidence.difference[index]),
        lower_bound=float(look.lower[index]),
        upper_bound=float(look.upper[index]),
        margin=float(look.margins[index]),
        p_harm=float(look.p_harm[index]),
        chance=chance,
        has_power=bool(look.has_power[index]),
        errors_reference=reference.failed + reference.missing,
        errors_candidate=candidate.failed + candidate.missing,
        status=status,
        tier="critical" if is_critical else "advisory",
        runs=runs,
        clusters=None if groups == n else groups,
        p_gain=float(look.p_gain[index]),
        troubles_reference=reference,
        troubles_candidate=candidate,
    )


def _pooled(ended: Ended, tables: Tables, gate: Gate) -> PooledVerdict | None:
    deciding = tables.deciding
    if not deciding:
        return None
    return PooledVerdict(
        benchmarks=tuple(row.benchmark for row in deciding),
        n=sum(row.n for row in deciding),
        difference=float(ended.look.pooled),
        lower_bound=float(ended.look.pooled_lower),
        margin=gate.pooled_margin,
    )


def _decided(ended: Ended, tables: Tables, pooled: PooledVerdict | None) -> tuple[Status, str]:
    match ended.status:
        case "pass":
            return "pass", pass_sentence(tables, pooled)
        case "fail":
            return "fail", harm_sentence(tables)
        case "gain":
            return "inconclusive", gain_sentence(tables)
        case "open":
            return "inconclusive", inconclusive_sentence(tables, pooled, ended.next_runs)
