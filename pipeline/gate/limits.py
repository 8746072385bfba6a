"""R4: what a candidate may not do whatever its score: fail, break off, answer unreadably, ramble. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.gate.paired import Floats, z_of
from pipeline.gate.pairing import Pairs, Side
from pipeline.policy import Band, Gate


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sentences, by what follows from them."""

    shown: tuple[str, ...]  # beyond a limit, and not by chance: the candidate fails
    blocking: tuple[str, ...]  # no pass while this holds
    warnings: tuple[str, ...]


def check_limits(
    pairs: Sequence[Pairs],
    runs: Mapping[str, int],
    stacks: tuple[str, str],
    gate: Gate,
    level: float,
) -> Limits:
    """`runs`: how many runs of each benchmark count; `level` of all tests together."""
    each = level / max(1, len(pairs))
    shown: list[str] = []
    blocking: list[str] = []
    warnings: list[str] = []
    for one in pairs:
        used = runs[one.benchmark]
        blocking += _absences(one, used, stacks[1], gate.unusable_excess)
        for is_shown, text in (
            *_unusable(one, used, stacks, gate.unusable_excess, each),
            *_lengths(one, used, stacks, gate.length_ratio, each),
        ):
            (shown if is_shown else warnings).append(text)
    return Limits(shown=tuple(shown), blocking=tuple(blocking), warnings=tuple(warnings))


def _absences(pairs: Pairs, runs: int, candidate: str, limit: float) -> Iterator[str]:
    """Requests without an answer are no matter of chance: they are repaired, not averaged."""
    absent = pairs.candidate.is_absent[:, :runs]
    if absent.mean() > limit:
        yield (
            f"{candidate} left {int(absent.sum())} of {absent.size} requests of {pairs.benchmark} "
            f"unanswered"
        )


def _unusable(
    pairs: Pairs, runs: int, stacks: tuple[str, str], limit: float, level: float
) -> Iterator[tuple[bool, str]]:
    evidence = pairs.usable(runs)
    if -float(evidence.difference[0]) > limit:
        reference, candidate = (
            int(side.is_unusable[:, :runs].sum()) for side in (pairs.reference, pairs.candidate)
        )
        text = (
            f"{pairs.benchmark}: {candidate} answers of {stacks[1]} failed, were cut off or could not be "
            f"read, {reference} of {stacks[0]}"
        )
        yield float(evidence.upper_bound(level)[0]) < -limit, text


def _lengths(
    pairs: Pairs, runs: int, stacks: tuple[str, str], band: Band, level: float
) -> Iterator[tuple[bool, str]]:
    if not pairs.is_generated:
        return
    reference, candidate = _token_means(pairs.reference, pairs.candidate, runs)
    total = float(reference.sum())
    if total == 0 or band[0] <= (ratio := float(candidate.sum()) / total) <= band[1]:
        return
    excess = candidate - band[1] * reference if ratio > 1 else band[0] * reference - candidate
    error = float(excess.std(ddof=1)) / len(excess) ** 0.5 if len(excess) > 1 else np.inf
    text = f"{pairs.benchmark}: answers of {stacks[1]} are {ratio:.2f} times as long as those of {stacks[0]}"
    yield float(excess.mean()) > z_of(level) * error, text


def _token_means(reference: Side, candidate: Side, runs: int) -> tuple[Floats, Floats]:
    """Tokens an item, over those that the reference answered; what the candidate left out counts as its longest."""
    known = ~reference.is_absent[:, :runs].any(axis=1)
    tokens = candidate.tokens[known, :runs]
    longest = tokens.max(initial=0.0)
    tokens = np.where(candidate.is_absent[known, :runs], longest, tokens)
    return reference.tokens[known, :runs].mean(axis=1), tokens.mean(axis=1)
