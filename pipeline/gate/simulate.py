"""The judge is judged: releases drawn at random go through the same `look_at` as a real one.

Model of a benchmark. A share of its items is answered by the toss of a coin, in every run and by
both stacks; such items flip. `persistent` is the share of the flips that come back in every run
instead, half of them losses and half gains. A true loss is a share of items that the reference
always gets right and the candidate never. All other items never flip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import comb, prod

import numpy as np

from pipeline.gate.evidence import Evidence
from pipeline.gate.looks import Rule, look_at
from pipeline.gate.paired import Booleans, Floats

RELATIVE_RULE = 0.05  # published: at most 5 % of the reference's score
POINTS_RULE = 0.05  # published: at most 5.0 points
POINTS_ITEMS = 50  # published: of one benchmark


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a candidate; shares from 0 to 1, by benchmark in their order."""

    flips: float  # psi: share of the items whose answers differ in one run
    loss: Floats
    persistent: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is judged, and how: items of each benchmark, its reference score, the looks, the rule."""

    items: Floats
    scores: Floats
    looks: tuple[int, ...]
    rule: Rule
    # The fact sheet's way asks every benchmark again until all pass at the same look.
    repeats_all: bool = False


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of the drawn releases."""

    passed: float
    failed: float
    runs: float  # items asked, as a multiple of asking each once
    points_50: float  # passed by: 50 items of one benchmark, at most 5 points lost
    points: float  # passed by: at most 5 points lost on each benchmark, every item asked once
    relative: float  # passed by: at most 5 % of the score lost on each, every item asked once

    @property
    def undecided(self) -> float:
        return max(0.0, 1 - self.passed - self.failed)


def operating_characteristics(design: Design, truth: Truth, *, draws: int, seed: int) -> Rates:
    """How often releases of which `truth` holds pass and fail."""
    rng = np.random.default_rng(seed)
    evidence = draw(design, truth, draws, rng)
    passed, failed, asked = judged(evidence, design)
    first = evidence[0]
    lost = np.where(design.rule.is_critical, -first.difference, -1.0)
    few = _few(truth, draws, rng)
    return Rates(
        passed=float(passed.mean()),
        failed=float(failed.mean()),
        runs=float(asked.mean() / design.items.sum()),
        points_50=float((few <= POINTS_RULE + 1e-9).mean()),
        points=float(np.all(lost <= POINTS_RULE + 1e-9, axis=-1).mean()),
        relative=float(np.all(lost <= RELATIVE_RULE * first.reference, axis=-1).mean()),
    )


def judged(evidence: Sequence[Evidence], design: Design) -> tuple[Booleans, Booleans, Floats]:
    """Which draws pass, which fail, and the item runs asked of each; `evidence` is by look."""
    held = evidence[0]
    shape = held.difference.shape
    passed, failed = np.zeros(shape[:-1], bool), np.zeros(shape[:-1], bool)
    is_going = np.ones(shape[:-1], bool)
    again = np.ones(shape, bool)
    for now in evidence:
        held = now.where(again & is_going[..., np.newaxis], held)
        look = look_at(held, design.rule)
        failed |= is_going & look.failed
        passed |= is_going & look.passed
        is_going &= ~(look.failed | look.passed | look.is_beyond.any(axis=-1))
        again = np.ones(shape, bool) if design.repeats_all else look.is_open
    return passed, failed, np.sum(held.runs * held.n, axis=-1)


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """What an item can be: how probable, and candidate less reference summed over runs by look."""

    probability: Floats
    sums: Floats  # (kind, look)
    is_coin: Booleans
    is_right: Booleans  # on the reference, in every run
    is_still: Booleans  # never flips


def draw(
    design: Design, truth: Truth, draws: int, rng: np.random.Generator
) -> tuple[Evidence, ...]:
    """Evidence of every look, cumulative, of (draws, benchmark)."""
    by_benchmark = [
        _draw_benchmark(
            int(items), score, kinds(truth, float(loss), design.looks), design, draws, rng
        )
        for items, score, loss in zip(design.items, design.scores, truth.loss, strict=True)
    ]
    return tuple(
        _evidence([found[look] for found in by_benchmark], design.items, runs)
        for look, runs in enumerate(design.looks)
    )


def kinds(truth: Truth, loss: float, looks: Sequence[int]) -> Kinds:
    """A true loss uses up its part of the flips; where it is larger there are as many as it needs."""
    fair = max(0.0, truth.flips - loss)
    coin, again = 2 * fair * (1 - truth.persistent), fair * truth.persistent / 2
    steps = _steps(tuple(looks))
    sums = [tuple(np.cumsum(path)) for path, _ in steps]
    runs = tuple(looks)
    all_lost, all_gained = tuple(-k for k in runs), runs
    probability = [coin * share for _, share in steps]
    probability += [loss + again, again, 1 - coin - 2 * again - loss]
    return Kinds(
        probability=np.array(probability),
        sums=np.array([*sums, all_lost, all_gained, tuple(0 for _ in runs)], float),
        is_coin=np.array([True] * len(steps) + [False] * 3),
        is_right=np.array([False] * len(steps) + [True, False, False]),
        is_still=np.array([False] * (len(steps) + 2) + [True]),
    )


@lru_cache(maxsize=8)
def _steps(looks: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Ways in which a coin item's difference moves from look to look, each with its probability."""
    new = [after - before for before, after in zip((0, *looks), looks, strict=False)]
    ways = [
        [(moved, comb(2 * runs, runs + moved) / 4**runs) for moved in range(-runs, runs + 1)]
        for runs in new
    ]
    return tuple(
        (tuple(moved for moved, _ in path), prod(share for _, share in path))
        for path in product(*ways)
    )


Drawn = tuple[Floats, Floats, Floats, Floats, Floats]  # mean, error, lost, gained, reference


def _draw_benchmark(
    items: int,
    score: float,
    kinds: Kinds,
    design: Design,
    draws: int,
    rng: np.random.Generator,
) -> list[Drawn]:
    """For each look one number a draw."""
    counts = rng.multinomial(items, kinds.probability, size=draws)
    still, coins = counts @ kinds.is_still, counts @ kinds.is_coin
    by_coin, always, never = (
        float(kinds.probability @ mark) for mark in (kinds.is_coin, kinds.is_right, kinds.is_still)
    )
    share = (score - always - by_coin / 2) / never if never else 0.0
    right = counts @ kinds.is_right + rng.binomial(still, min(max(share, 0.0), 1.0))
    found = []
    for look, runs in enumerate(design.looks):
        sums = kinds.sums[:, look]
        mean = counts @ sums / (runs * items)
        squares = counts @ (sums * sums) / (runs * runs * items)
        error = np.sqrt(np.maximum(squares - mean * mean, 0) / (items - 1))
        # Coins fall for the reference independently of the difference; close enough for power.
        reference: Floats = (right + rng.binomial(coins * runs, 0.5) / runs) / items
        lost, gained = (counts @ mark.astype(float) for mark in (sums < 0, sums > 0))
        found.append((mean, np.asarray(error), lost, gained, np.asarray(reference)))
    return found


def _evidence(drawn: Sequence[Drawn], items: Floats, runs: int) -> Evidence:
    mean, error, lost, gained, reference = (
        np.stack(part, axis=-1) for part in zip(*drawn, strict=True)
    )
    n = np.broadcast_to(items, mean.shape)
    return Evidence(
        n=n,
        runs=np.full(mean.shape, float(runs)),
        difference=mean,
        error=error,
        clusters=n,
        lost=lost,
        gained=gained,
        reference=reference,
        reference_at_best=reference,
        is_counts=np.full(mean.shape, runs == 1),
    )


def _few(truth: Truth, draws: int, rng: np.random.Generator) -> Floats:
    """Points lost on the published rule's few items, of the benchmark that lost most."""
    loss = float(np.max(truth.loss))
    fair = max(0.0, truth.flips - loss) / 2
    counts = rng.multinomial(POINTS_ITEMS, [fair + loss, fair, 1 - loss - 2 * fair], size=draws)
    return np.asarray((counts[:, 0] - counts[:, 1]) / POINTS_ITEMS, float)
