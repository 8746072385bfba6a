"""Paired statistics of right-or-wrong items asked once, as pure functions of counts.

`lost` items were right on the reference and wrong on the candidate, `gained` the reverse, out of
`n`; the difference is (gained - lost) / n. Shares and margins run from 0 to 1, every bound is
one-sided. Arguments are numbers or arrays that broadcast: the judge asks for one release, the
simulation for thousands.
"""

from __future__ import annotations

from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

HALVINGS = 55  # of the interval that a bound is sought in: to the last digits of a double


def z_of(alpha: float) -> float:
    """The one-sided normal quantile: 1.644854 at .05."""
    return NormalDist().inv_cdf(1 - alpha)


def mcnemar_harm(lost: ArrayLike, gained: ArrayLike) -> Floats:
    """Exact one-sided McNemar p: P(X <= gained), X ~ Binomial(lost + gained, 1/2); 1 if none."""
    pairs = np.stack(np.broadcast_arrays(np.asarray(lost, int), np.asarray(gained, int)), axis=-1)
    distinct, where = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True)
    values = np.array([_mcnemar(int(b), int(c)) for b, c in distinct], dtype=np.float64)
    return values[where.reshape(-1)].reshape(pairs.shape[:-1])


@lru_cache(maxsize=100_000)
def _mcnemar(lost: int, gained: int) -> float:
    tosses = lost + gained
    ways = as_few = 1
    for heads in range(1, gained + 1):
        ways = ways * (tosses - heads + 1) // heads
        as_few += ways
    return as_few / (1 << tosses)


def holm_rejections(p_values: ArrayLike, alpha: float, among: ArrayLike = True) -> Booleans:
    """Which hypotheses of the last axis Holm's step-down procedure (1979) rejects at level alpha.

    `among` marks those that belong to the family.
    """
    p = np.asarray(p_values, float)
    family = np.broadcast_to(np.asarray(among, bool), p.shape)
    order = np.argsort(np.where(family, p, np.inf), axis=-1)
    ranked = np.take_along_axis(np.where(family, p, np.inf), order, axis=-1)
    left = family.sum(axis=-1, keepdims=True) - np.arange(p.shape[-1])
    rejected = np.logical_and.accumulate(ranked <= alpha / np.maximum(left, 1), axis=-1)
    found = np.zeros(p.shape, bool)
    np.put_along_axis(found, order, rejected, axis=-1)
    rejections: Booleans = found & family & (alpha > 0)
    return rejections


def tango_z(lost: ArrayLike, gained: ArrayLike, n: ArrayLike, difference: ArrayLike) -> Floats:
    """Tango's score statistic of "the true difference is `difference`".

    Source: Statistics in Medicine 17:891-908 (1998), with the restricted estimate in closed form.
    It falls as `difference` rises, is 0 at the observed difference and McNemar's z at 0.
    """
    b, c, n, d = (np.asarray(value, float) for value in (lost, gained, n, difference))
    surplus = c - b - n * d
    linear = -b - c + (2 * n - c + b) * d
    root = np.sqrt(np.maximum(linear * linear + 8 * n * b * d * (1 - d), 0))
    lost_share = (root - linear) / (4 * n)
    variance = np.maximum(n * (2 * lost_share + d * (1 - d)), 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(surplus == 0, 0.0, surplus / np.sqrt(variance))


def tango_lower_bound(lost: ArrayLike, gained: ArrayLike, n: ArrayLike, z: ArrayLike) -> Floats:
    """The smallest true difference that the data do not reject at `z`: from -1 to the observed."""
    high: Floats = (np.asarray(gained, float) - np.asarray(lost, float)) / np.asarray(n, float)
    low: Floats = np.full_like(high, -1.0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rejected = tango_z(lost, gained, n, middle) > np.asarray(z, float)
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return np.asarray((low + high) / 2)


def tango_upper_bound(lost: ArrayLike, gained: ArrayLike, n: ArrayLike, z: ArrayLike) -> Floats:
    """The largest true difference that the data do not reject at `z`."""
    return -tango_lower_bound(gained, lost, n, z)


def score_lower_bound(score: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """Wilson's one-sided lower bound: the score test inverted, as Tango's is for a difference."""
    p, n = np.asarray(score, float), np.asarray(n, float)
    z = z_of(alpha)
    spread = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return np.asarray((p + z * z / (2 * n) - spread) / (1 + z * z / n))
