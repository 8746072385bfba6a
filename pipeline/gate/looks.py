"""What one look at the evidence decides: R1 harm, R2 each margin, R3 the pooled margin. Arrays (…, benchmark).

The judge and the simulation both come through `look_at`, one with a release, one with thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.gate.evidence import Evidence
from pipeline.gate.paired import Booleans, Floats, holm_rejections, score_lower_bound, z_of
from pipeline.gate.spending import look_level
from pipeline.policy import Gate


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The policy for given benchmarks, in their order."""

    level: float  # of every benchmark's bound at one look
    pooled_level: float
    harm_level: float  # 0: harm alone does not fail
    margins: Floats
    chance: Floats  # scores of guessing
    is_critical: Booleans  # the others are advisory
    pooled_margin: float | None
    power_margins: float
    relative_below: float


def rule_of(gate: Gate, chance: Mapping[str, float]) -> Rule:
    """`chance` names the benchmarks, each with the score of guessing."""
    pooled = gate.alpha if gate.pooled_alpha is None else gate.pooled_alpha
    harm = gate.alpha if gate.harm_alpha is None else gate.harm_alpha
    return Rule(
        level=look_level(gate.alpha, gate.looks),
        pooled_level=look_level(pooled, gate.looks),
        harm_level=look_level(harm, gate.looks) if gate.harm else 0.0,
        margins=np.array([gate.margin_of(name) for name in chance], float),
        chance=np.array([*chance.values()], float),
        is_critical=np.array([name not in gate.advisory for name in chance], bool),
        pooled_margin=gate.pooled_margin,
        power_margins=gate.power_margins,
        relative_below=gate.relative_below,
    )


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything that one look found; the last four have no benchmark axis."""

    lower: Floats
    upper: Floats
    margins: Floats  # as they are at the reference's score
    p_harm: Floats
    p_gain: Floats
    has_power: Booleans
    is_deciding: Booleans  # critical, and with power
    is_harmed: Booleans
    is_gained: Booleans  # a gain is shown
    is_beyond: Booleans  # a gain above the margin is shown
    is_within: Booleans  # a loss of the margin is ruled out
    is_open: Booleans  # more runs of this benchmark could decide
    pooled: Floats  # mean difference over the items of the deciding benchmarks; NaN: there is none
    pooled_lower: Floats
    failed: Booleans
    passed: Booleans


def look_at(evidence: Evidence, rule: Rule) -> Look:
    lower, upper = evidence.lower_bound(rule.level), evidence.upper_bound(rule.level)
    independent = np.minimum(evidence.n, evidence.clusters)
    has_power = _has_power(evidence.reference, independent, rule)
    # Rows that the reference lacks neither excuse a benchmark from deciding nor let it carry a pass.
    deciding = rule.is_critical & _has_power(evidence.reference_at_best, independent, rule)
    carries = (rule.is_critical & has_power).any(axis=-1)
    margins = rule.margins * _shrunk(evidence.reference, rule.relative_below)
    is_within = lower > -margins
    p_harm, p_gain = evidence.p_harm(), evidence.p_gain()
    is_harmed = holm_rejections(p_harm, rule.harm_level, rule.is_critical)
    is_beyond = (lower > rule.margins) & rule.is_critical
    pooled, error = _pooled(evidence, deciding)
    pooled_lower = pooled - z_of(rule.pooled_level) * error
    is_pooled_within = (
        np.ones(pooled.shape, bool)
        if rule.pooled_margin is None
        else pooled_lower > -rule.pooled_margin
    )
    within = np.all(is_within | ~deciding, axis=-1) & is_pooled_within & carries
    failed = np.asarray(is_harmed.any(axis=-1))
    return Look(
        lower=lower,
        upper=upper,
        margins=margins,
        p_harm=p_harm,
        p_gain=p_gain,
        has_power=has_power,
        is_deciding=deciding,
        is_harmed=is_harmed,
        is_gained=holm_rejections(p_gain, rule.level, rule.is_critical),
        is_beyond=is_beyond,
        is_within=is_within,
        is_open=deciding & ~(is_within & is_pooled_within[..., np.newaxis]),
        pooled=pooled,
        pooled_lower=pooled_lower,
        failed=failed,
        passed=within & ~failed & ~is_beyond.any(axis=-1),
    )


def _has_power(reference: Floats, n: Floats, rule: Rule) -> Booleans:
    floor = score_lower_bound(np.clip(reference, 0, 1), n, rule.level)
    return np.asarray(floor - rule.chance >= rule.power_margins * rule.margins)


def _shrunk(reference: Floats, below: float) -> Floats:
    """A fixed margin would let a reference that scores 5 % lose most of it."""
    return np.minimum(1.0, reference / below) if below > 0 else np.ones_like(reference)


def _pooled(evidence: Evidence, deciding: Booleans) -> tuple[Floats, Floats]:
    """Mean difference over all items of the deciding benchmarks, and its standard error."""
    items = np.where(deciding, evidence.n, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = items / items.sum(axis=-1, keepdims=True)
    # Where almost nothing flips, at least one whole item: see Evidence.
    error = np.fmax(evidence.error, 1 / evidence.n)
    return (
        np.sum(weights * evidence.difference, axis=-1),
        np.sqrt(np.sum(weights**2 * error**2, axis=-1)),
    )
