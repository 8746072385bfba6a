"""How far two stacks' next-token probabilities are apart, given only the k likeliest tokens of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.accuracy_result import ListFaults, LogitComparison
from pipeline.traces import NO_TOKEN, Lists, PassName

Numbers = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]

MINUS_INFINITY = -9999.0  # vLLM's way to write it
LEAST = 1e-12  # probability of a bucket
ROUNDING = 1e-3  # by which float32 probabilities may sum to more than 1


def compare(
    name: PassName, reference: Sequence[Lists], candidate: Sequence[Lists]
) -> LogitComparison:
    """Every position that both stacks answered in the same context. Pure, and total over all inputs."""
    pairs = list(zip(reference, candidate, strict=False))
    unpaired = [_is_unpaired(one, other) for one, other in pairs]
    joined = [
        _Pair(one, other, _shared_positions(one, other))
        for (one, other), alone in zip(pairs, unpaired, strict=True)
        if not alone
    ]
    kl = _flat([part.kl for part in joined])
    mismatch = _flat([part.mismatch for part in joined]).astype(bool)
    margins = _flat([part.margin for part in joined])[mismatch]
    missing = _flat([part.missing for part in joined])
    forks = [part.fork for part in joined if part.fork is not None]
    decoded = name.startswith("decode")
    return LogitComparison(
        name=name,
        texts=len(pairs),
        positions=len(kl),
        kl_mean=float(kl.mean()) if len(kl) else None,
        kl_p99=float(np.percentile(kl, 99)) if len(kl) else None,
        kl_max=float(kl.max()) if len(kl) else None,
        top1_agreement=float(1 - mismatch.mean()) if len(kl) else None,
        missing_share=float(missing.mean()) if len(kl) else None,
        mismatches=int(mismatch.sum()),
        widest_margin=float(margins.max()) if len(margins) else None,
        reference_perplexity=_perplexity([part.reference_text for part in joined]),
        candidate_perplexity=_perplexity([part.candidate_text for part in joined]),
        diverged=len(forks) if decoded else None,
        first_divergence=min(forks, default=None) if decoded else None,
        reference_faults=faults_of(reference),
        candidate_faults=_with_unpaired(faults_of(candidate), pairs, unpaired),
    )


def faults_of(answers: Sequence[Lists]) -> ListFaults:
    """Counts over whole answers, also behind a divergence."""
    errors = [answer.error for answer in answers if answer.error]
    entries = [answer.logprobs[answer.tokens != NO_TOKEN] for answer in answers]
    values = _flat([*entries, *(answer.text_logprobs for answer in answers)])
    impossible = sum(int(np.sum(_is_impossible(answer))) for answer in answers)
    return ListFaults(
        failed=len(errors),
        nan=int(np.isnan(values).sum()),
        infinite=int(np.isinf(values).sum()),
        sentinel=int((np.isfinite(values) & (values <= MINUS_INFINITY)).sum()),
        impossible=impossible,
        first_error=errors[0] if errors else "",
    )


def tail_kl(
    reference: Lists, candidate: Lists, positions: npt.NDArray[np.int64]
) -> tuple[Numbers, Numbers]:
    """KL of the two lists at each position in nats, and the share of k missing in the candidate's list.

    Over the tokens in both lists and one bucket for everything else, so that both stacks are
    measured on the same partition: a lower bound of the full divergence, nothing is imputed.
    """
    ours, theirs = reference.tokens[positions], candidate.tokens[positions]
    p_log = reference.logprobs[positions].astype(np.float64)
    all_q_log = candidate.logprobs[positions].astype(np.float64)
    same = (ours[:, :, None] == theirs[:, None, :]) & (ours != NO_TOKEN)[:, :, None]
    is_shared = same.any(axis=2)
    q_log = np.take_along_axis(all_q_log, same.argmax(axis=2), axis=1)
    p, q = np.exp(p_log), np.where(is_shared, np.exp(q_log), 0)
    shared = np.where(is_shared, p * (p_log - q_log), 0).sum(axis=1)
    p_tail = np.maximum(1 - np.where(is_shared, p, 0).sum(axis=1), LEAST)
    q_tail = np.maximum(1 - q.sum(axis=1), LEAST)
    lost = np.where(is_shared, 0, p).sum(axis=1)
    # What the candidate does not list it gives at most its least listed probability each.
    most = (~is_shared).sum(axis=1) * np.exp(all_q_log.min(axis=1))
    # Rounding of the sums can leave it a hair below zero.
    return np.maximum(shared + _tail(p_tail, q_tail, lost, most), 0), 1 - is_shared.mean(axis=1)


def _tail(p_tail: Numbers, q_tail: Numbers, lost: Numbers, most: Numbers) -> Numbers:
    """The bucket's share of the KL; it is split where the candidate cannot give `lost` its part of q_tail.

    Without that, lists that have no token in common would be equal: everything is tail on both sides.
    """
    whole = p_tail * np.log(p_tail / q_tail)
    rest = np.maximum(p_tail - lost, LEAST)
    given = np.maximum(np.minimum(most, q_tail), LEAST)
    other = np.maximum(q_tail - given, LEAST)
    known = np.maximum(lost, LEAST)
    split = known * np.log(known / given) + rest * np.log(rest / other)
    return np.where(given * p_tail < lost * q_tail, split, whole)


class _Pair:
    """Two answers to one text, as numbers per position that is sound on both sides."""

    def __init__(self, reference: Lists, candidate: Lists, shared: int) -> None:
        sound = _is_sound(reference)[:shared] & _is_sound(candidate)[:shared]
        positions = np.flatnonzero(sound)
        self.fork = _fork(reference, candidate)
        self.kl, self.missing = tail_kl(reference, candidate, positions)
        self.mismatch = reference.tokens[positions, 0] != candidate.tokens[positions, 0]
        if len(reference.generated):
            self.mismatch |= reference.generated[positions] != candidate.generated[positions]
        best = reference.logprobs[positions].astype(np.float64)
        self.margin = best[:, 0] - best[:, 1]
        self.reference_text = reference.text_logprobs[positions].astype(np.float64)
        self.candidate_text = candidate.text_logprobs[positions].astype(np.float64)


def _is_unpaired(reference: Lists, candidate: Lists) -> bool:
    """Nothing to compare: no answer, or one of another length than was asked for."""
    failed = bool(reference.error or candidate.error)
    return (
        failed
        or reference.tokens.shape != candidate.tokens.shape
        or len(reference.generated) != len(candidate.generated)
    )


def _with_unpaired(
    faults: ListFaults, pairs: Sequence[tuple[Lists, Lists]], unpaired: Sequence[bool]
) -> ListFaults:
    odd = [
        f"{other.positions} positions came for {one.positions}"
        for (one, other), alone in zip(pairs, unpaired, strict=True)
        if alone and not one.error and not other.error
    ]
    return faults.model_copy(
        update={
            "failed": faults.failed + len(odd),
            "first_error": faults.first_error or next(iter(odd), ""),
        }
    )


def _fork(reference: Lists, candidate: Lists) -> int | None:
    """Tokens that both answers have in common before they part; None when they do not."""
    different = np.flatnonzero(reference.generated != candidate.generated)
    return int(different[0]) if len(different) else None


def _shared_positions(reference: Lists, candidate: Lists) -> int:
    """Positions with the same context: up to and with the first other token."""
    fork = _fork(reference, candidate)
    return reference.positions if fork is None else fork + 1


def _is_sound(answer: Lists) -> Marks:
    values = np.concatenate([answer.logprobs, answer.text_logprobs[:, None]], axis=1)
    usable: Marks = (np.isfinite(values) & (values > MINUS_INFINITY)).all(axis=1)
    return usable & ~_is_impossible(answer)


def _is_impossible(answer: Lists) -> Marks:
    filled = answer.tokens != NO_TOKEN
    # NaN and infinity are counted elsewhere.
    logprobs = np.where(filled & np.isfinite(answer.logprobs), answer.logprobs, -np.inf)
    with np.errstate(over="ignore"):
        total = np.exp(logprobs.astype(np.float64)).sum(axis=1)
    wrong: Marks = ~filled.all(axis=1) | (total > 1 + ROUNDING)
    return wrong


def _flat(parts: Sequence[npt.NDArray[np.generic]]) -> Numbers:
    return np.concatenate([np.zeros(0), *(part.ravel().astype(np.float64) for part in parts)])


def _perplexity(parts: Sequence[Numbers]) -> float | None:
    values = _flat(parts)
    if not len(values) or -values.mean() > math.log(1e300):
        return None
    return float(np.exp(-values.mean()))
