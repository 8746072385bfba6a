"""How a level is spent over several looks at growing data: Pocock's constant boundary (1977).

Looks after K runs see information in proportion to K. Without spending, three looks at .05 each
accept a candidate that is exactly at its margin with probability .107.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from math import erfc, pi, sqrt

import numpy as np

from pipeline.gate.paired import Floats, z_of

NODES = 64  # of Gauss and Legendre
FAR = 9.0  # standard deviations beyond which a density weighs nothing
CLOSE = 1e-9


@lru_cache(maxsize=64)
def look_level(alpha: float, looks: tuple[int, ...]) -> float:
    """One-sided level of each look such that all of them together cross with probability alpha."""
    if len(looks) == 1 or alpha <= 0:
        return alpha
    level = alpha / len(looks)
    # All looks together cross almost in proportion to the level, so this settles in a few steps.
    while abs(ratio := alpha / crossing(level, looks) - 1) > CLOSE:
        level *= 1 + ratio
    return level


def crossing(level: float, looks: Sequence[int]) -> float:
    """Probability that a drift-free candidate crosses the boundary of `level` at any look."""
    z = z_of(level)
    nodes, weights = _gauss()
    crossed, runs = level, looks[0]
    # Density of the running sum where no look has crossed yet, on nodes below the boundary.
    sums, steps = _scaled(nodes, weights, -FAR * sqrt(runs), z * sqrt(runs))
    density = np.exp(-(sums**2) / (2 * runs)) / sqrt(2 * pi * runs)
    for following in looks[1:]:
        new = following - runs
        mass = density * steps
        tails = [erfc((z * sqrt(following) - at) / sqrt(2 * new)) / 2 for at in sums]
        crossed += float(mass @ np.array(tails))
        after, steps = _scaled(nodes, weights, -FAR * sqrt(following), z * sqrt(following))
        kernel = np.exp(-((after[:, None] - sums[None, :]) ** 2) / (2 * new)) / sqrt(2 * pi * new)
        density, sums, runs = kernel @ mass, after, following
    return crossed


@cache
def _gauss() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights


def _scaled(nodes: Floats, weights: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    half = (high - low) / 2
    return low + half * (nodes + 1), half * weights
