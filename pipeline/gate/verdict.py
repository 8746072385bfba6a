"""From rows to the verdict on one candidate: a pure function of rows and policy.

Looks are taken in the order of the policy. At each is judged: fail (harm is shown, or a limit is
broken beyond chance), pass, or open; open benchmarks are looked at again with more runs, where
their rows are there. What cannot be compared at all is invalid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from pipeline.accuracy_result import (
    AccuracyResult,
    BenchmarkVerdict,
    ItemRow,
    PooledVerdict,
    Verdict,
)
from pipeline.gate.imports import Doubted, import_faults
from pipeline.gate.looks import Rule, rule_of
from pipeline.gate.operators import operator_faults
from pipeline.gate.pairing import Pairs, pair
from pipeline.gate.sentences import (
    Tables,
    gain_sentence,
    harm_sentence,
    inconclusive_sentence,
    invalid_sentence,
    notes,
    nothing_decides,
    pass_sentence,
    warnings_of,
)
from pipeline.gate.sequence import Ended, take_looks
from pipeline.gate.validity import (
    Conditions,
    condition_faults,
    policy_faults,
    row_faults,
)
from pipeline.operator_evidence import StackOperators
from pipeline.policy import Gate, policy_sha256
from pipeline.result_source import ImportedRuns

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
    imported: Mapping[str, ImportedRuns] | None = None,
) -> Verdict:
    """The verdict on `candidate`; `chance` names every benchmark, with the score of guessing.

    `generated` names the benchmarks whose answers are written, not chosen. No pass before
    `least_runs` runs (an earlier check warned). `operators`: those that each stack ran with. Rows of
    other stacks are left out. It never raises for what the rows hold: what cannot be compared is
    invalid. What somebody else asked (`imported`) has no more runs than result files, and is advisory
    where nobody knows which stack answered.
    """
    stacks, imported = (reference, candidate), imported or {}
    compared = [row for row in rows if row.stack in stacks]
    doubted = Doubted.among(imported, compared, stacks, gate)
    faults = (
        *policy_faults(stacks, gate, chance),
        *condition_faults(conditions or {}, stacks),
        *operator_faults(operators, stacks),
        *import_faults(imported, stacks),
        *row_faults(
            [row for row in compared if row.benchmark not in doubted.names],
            stacks,
            [name for name in chance if name not in doubted.names],
            gate.unusable_excess,
        ),
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
        warnings=doubted.sentences,
        policy_sha256=policy_sha256(gate, chance),
    )
    if faults:
        return verdict
    chance = {name: share for name, share in chance.items() if name not in doubted.unfit}
    if not chance:
        nothing = f"inconclusive: {nothing_decides()}"
        return verdict.model_copy(update={"status": "inconclusive", "sentence": nothing})
    advisory = (*gate.advisory, *doubted.names)
    rule = rule_of(gate.model_copy(update={"advisory": advisory}), chance)
    pairs = tuple(
        pair(
            [row for row in compared if row.benchmark == name],
            stacks,
            is_generated=name in generated,
        )
        for name in chance
    )
    ended = take_looks(
        pairs,
        rule,
        gate,
        stacks,
        least_runs,
        {name: one for name, one in imported.items() if name in chance},
    )
    tables = Tables(
        stacks=stacks,
        rows=_tables(pairs, ended, rule, chance),
        limits=ended.limits,
        look=ended.look,
        waiting=ended.waiting,
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
            "warnings": (*doubted.sentences, *warnings_of(tables)),
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
        imported=result.imported,
    )


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
