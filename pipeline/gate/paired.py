"""Paired statistics of one benchmark, as pure functions of counts.

`lost` items were right on the reference and wrong on the candidate, `gained` the reverse, out of
`n`; the difference is (gained - lost) / n. Shares and margins run from 0 to 1, every bound is
one-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from statistics import NormalDist

from scipy.optimize import brentq
from scipy.stats import binom, binomtest

# Flips beyond this tail weigh less than any printed digit of a probability.
NEGLIGIBLE = 1e-12


def z_of(alpha: float) -> float:
    """The one-sided normal quantile: 1.644854 at .05."""
    return NormalDist().inv_cdf(1 - alpha)


def mcnemar_harm(lost: int, gained: int) -> float:
    """Exact one-sided McNemar p: P(X <= gained), X ~ Binomial(lost + gained, 1/2); 1 if none."""
    if lost + gained == 0:
        return 1.0
    return float(binomtest(gained, lost + gained, 0.5, alternative="less").pvalue)


def holm_rejections(p_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Which hypotheses Holm's step-down procedure (1979) rejects at family level alpha."""
    ranked = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = [False] * len(p_values)
    for rank, index in enumerate(ranked):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        rejected[index] = True
    return tuple(rejected)


def tango_z(lost: int, gained: int, n: int, difference: float) -> float:
    """Tango's score statistic of "the true difference is `difference`".

    Source: Statistics in Medicine 17:891-908 (1998), with the restricted estimate in closed form.
    It falls as `difference` rises, is 0 at the observed difference and McNemar's z at 0.
    """
    surplus = gained - lost - n * difference
    linear = -lost - gained + (2 * n - gained + lost) * difference
    constant = -lost * difference * (1 - difference)
    root = sqrt(max(linear * linear - 8 * n * constant, 0.0))
    lost_share = (root - linear) / (4 * n)
    variance = n * (2 * lost_share + difference * (1 - difference))
    if variance > 0:
        return surplus / sqrt(variance)
    return 0.0 if surplus == 0 else inf if surplus > 0 else -inf


def tango_lower_bound(lost: int, gained: int, n: int, z: float) -> float:
    """The smallest true difference that the data do not reject at `z`: from -1 to the observed."""
    observed = (gained - lost) / n
    if observed == -1:
        return -1.0

    def above(difference: float) -> float:
        # Clipped because the statistic is infinite at -1; the crossing of z is not moved.
        return min(tango_z(lost, gained, n, difference), 2 * z) - z

    return float(brentq(above, -1.0, observed, xtol=1e-12))


def tango_upper_bound(lost: int, gained: int, n: int, z: float) -> float:
    """The largest true difference that the data do not reject at `z`."""
    return -tango_lower_bound(gained, lost, n, z)


def score_lower_bound(right: int, n: int, alpha: float) -> float:
    """Wilson's one-sided lower bound: the score test inverted, as Tango's is for a difference."""
    interval = binomtest(right, n, alternative="greater").proportion_ci(
        confidence_level=1 - alpha, method="wilson"
    )
    return float(interval.low)


def has_power(
    right: int, n: int, *, chance: float, margin: float, power_margins: float, alpha: float
) -> bool:
    """Whether the reference is far enough above chance to lose `power_margins` margins at all."""
    return score_lower_bound(right, n, alpha) - chance >= power_margins * margin


def pass_probability(
    n: int, margin: float, *, lost_share: float, gained_share: float, alpha: float, sets: int
) -> float:
    """Probability that `sets` independent benchmarks of n items pass R1 and R2 together.

    By exact enumeration. Each item is lost or gained with the given probability, independently.
    Holm rejects nothing exactly when the smallest p is above alpha / sets, so that the sets can be
    judged one by one. The power check is not part of it.
    """
    z = z_of(alpha)
    passing = 0.0
    # Given the lost items, each other item is gained with the conditional probability.
    share = gained_share / (1 - lost_share)
    for lost, weight in enumerate(_weights(n, lost_share)):
        for gained, conditional in enumerate(_weights(n - lost, share)):
            if tango_z(lost, gained, n, -margin) > z and mcnemar_harm(lost, gained) > alpha / sets:
                passing += weight * conditional
    return float(passing**sets)


def equal_pass_probability(
    n: int, margin: float, flip_share: float, alpha: float, sets: int
) -> float:
    """`pass_probability` of an equally good candidate that flips `flip_share` of the items."""
    half = flip_share / 2
    return pass_probability(n, margin, lost_share=half, gained_share=half, alpha=alpha, sets=sets)


def _weights(n: int, share: float) -> list[float]:
    """Binomial probabilities of 0, 1, 2 … of n, up to where the rest is negligible."""
    most = min(n, int(binom.isf(NEGLIGIBLE, n, share)) + 1)
    return [float(weight) for weight in binom.pmf(range(most + 1), n, share)]
