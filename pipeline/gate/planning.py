"""How often a benchmark of given size passes in one look: what margins and sizes are planned with."""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from pipeline.gate.paired import mcnemar_harm, score_lower_bound, tango_z, z_of

# Flips beyond this tail weigh less than any printed digit of a probability.
NEGLIGIBLE = 1e-12


def has_power(
    right: int, n: int, *, chance: float, margin: float, power_margins: float, alpha: float
) -> bool:
    """Whether the reference is far enough above chance to lose `power_margins` margins at all."""
    floor = float(score_lower_bound(right / n, n, alpha))
    return floor - chance >= power_margins * margin


def pass_probability(
    n: int, margin: float, *, lost_share: float, gained_share: float, alpha: float, sets: int
) -> float:
    """Probability that `sets` independent benchmarks of n items pass R1 and R2 together, in one look.

    By exact enumeration. Each item is lost or gained with the given probability, independently.
    Holm rejects nothing exactly when the smallest p is above alpha / sets, so that the sets can be
    judged one by one. The power check is not part of it.
    """
    lost = np.arange(_most(n, lost_share) + 1)[:, None]
    # Given the lost items, each other item is gained with the conditional probability.
    share = gained_share / (1 - lost_share)
    gained = np.arange(_most(n, share) + 1)[None, :]
    weight = binom.pmf(lost, n, lost_share) * binom.pmf(gained, n - lost, share)
    passes = (tango_z(lost, gained, n, -margin) > z_of(alpha)) & (
        mcnemar_harm(lost, gained) > alpha / sets
    )
    return float(np.sum(weight * (passes & (lost + gained <= n)))) ** sets


def equal_pass_probability(
    n: int, margin: float, flip_share: float, alpha: float, sets: int
) -> float:
    """`pass_probability` of an equally good candidate that flips `flip_share` of the items."""
    half = flip_share / 2
    return pass_probability(n, margin, lost_share=half, gained_share=half, alpha=alpha, sets=sets)


def _most(n: int, share: float) -> int:
    return min(n, int(binom.isf(NEGLIGIBLE, n, share)) + 1)
