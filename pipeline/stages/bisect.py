"""bisect: which operators make a candidate fail, found by serving it with some of them switched off.

How one set is probed is given from outside. Every answer is kept on disk as soon as it comes, so that an interrupted
search goes on where it was; the answer of the search is probed once more before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from pipeline.culprits import (
    BisectResult,
    BisectStatus,
    CheckedClaim,
    Level,
    MaskedFault,
    Probe,
    ProbeAnswer,
    Subject,
    probe_of,
    together,
)
from pipeline.gate.search import Claim, Culprits, Operators, Question, claims, find_culprits
from pipeline.probe_store import ProbeStore

AGAIN = ", once more"  # of a profile: an answer that is to confirm another is never the same one


@dataclass(frozen=True, kw_only=True)
class Prober:
    """One way to ask. `probe` gets the operators to switch on, and a slot that no other running probe has."""

    profile: str
    width: int  # probes that may run side by side; slots are 0 to width - 1
    probe: Callable[[Operators, int], ProbeAnswer]
    rest: Callable[[], None] = lambda: None  # ends what is kept running between probes


@dataclass(frozen=True, kw_only=True)
class BisectTask:
    subject: Subject
    operators: tuple[str, ...]  # every registered one
    likely: frozenset[str]  # suspected first
    level: Level
    budget_s: float  # of this run; a probe that runs at its end is waited for
    cache: Path


def bisect(
    task: BisectTask,
    searcher: Prober,
    verifier: Prober,
    say: Callable[[str], None],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> BisectResult:
    """Search with one prober, confirm with the other; an answer that is not confirmed is searched for with the other.

    What a prober raises ends the search; a server that cannot be served with some operators is an answer.
    """
    run = _Run(task, say, clock)
    first = run.search_and_check(searcher, verifier, task.likely)
    if first.status in ("found", "budget_ended") or searcher.profile == verifier.profile:
        return first
    say(f"{first.sentence}; searching with {verifier.profile}")
    likely = task.likely.union(*first.failing_sets)
    return run.search_and_check(verifier, verifier, likely)


class _Run:
    """One search on its way."""

    def __init__(
        self, task: BisectTask, say: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._task = task
        self._say = say
        self._clock = clock
        self._started = clock()
        self._store = ProbeStore(task.cache, task.subject)
        self._probes: list[Probe] = []
        self._checks: tuple[CheckedClaim, ...] = ()
        self._question: Question | None = None
        self._cached = 0
        self._rounds = 0

    def search_and_check(
        self, searcher: Prober, verifier: Prober, likely: Collection[str]
    ) -> BisectResult:
        found = self._search(searcher, likely)
        searcher.rest()  # the verifier wants its port and its memory
        if found is None or found.status != "found":
            return self._result(found.status if found else "budget_ended", found)
        checks = self._check(found, verifier)
        if checks is None:
            return self._result("budget_ended", found)
        held = all(check.held for check in checks)
        return self._result("found" if held else "not_confirmed", found)

    def _search(self, prober: Prober, likely: Collection[str]) -> Culprits | None:
        """None when the budget ended first."""
        search = find_culprits(self._task.operators, width=prober.width, likely=likely)
        try:
            self._question = next(search)
            while answers := self._ask(prober, self._question.probes):
                fails = {probe: a.fails(self._task.level) for probe, a in answers.items()}
                self._question = search.send(fails)
        except StopIteration as stop:
            found: Culprits = stop.value
            self._question = None
            return found
        return None

    def _check(self, found: Culprits, prober: Prober) -> tuple[CheckedClaim, ...] | None:
        """Everything the answer stands on, asked once more; None when the budget ended first."""
        again = replace(prober, profile=prober.profile + AGAIN)
        wanted = claims(found, self._task.operators)
        self._say(f"confirming with {len(wanted)} probes: {_named(found)}")
        answers = self._ask(again, [claim.enabled for claim in wanted])
        if answers is None:
            return None
        self._checks = tuple(
            self._checked(claim, answers[claim.enabled], again.profile) for claim in wanted
        )
        for check in self._checks:
            self._say(f"{'holds' if check.held else 'DOES NOT HOLD'}: {check.says}")
        return self._checks

    def _checked(self, claim: Claim, answer: ProbeAnswer, profile: str) -> CheckedClaim:
        held = answer.fails(self._task.level) == claim.fails
        probe = probe_of(claim.enabled, self._task.operators, profile, answer)
        return CheckedClaim(says=claim.says, held=held, probe=probe)

    def _ask(
        self, prober: Prober, probes: Sequence[Operators]
    ) -> dict[Operators, ProbeAnswer] | None:
        """Answers from disk, and the others by probing; None when that would begin after the budget."""
        answers = {p: found for p in probes if (found := self._store.get(prober.profile, p))}
        missing = [probe for probe in probes if probe not in answers]
        for probe, answer in answers.items():
            self._note(prober, probe, answer, cached=True)
        if missing and self._clock() - self._started >= self._task.budget_s:
            return None
        self._rounds += -(-len(missing) // prober.width)
        for probe, answer in self._probed(prober, missing):
            answers[probe] = answer
            self._note(prober, probe, answer, cached=False)
        return answers

    def _probed(
        self, prober: Prober, probes: Sequence[Operators]
    ) -> Iterator[tuple[Operators, ProbeAnswer]]:
        if prober.width == 1:  # here, so that an interrupt ends it
            yield from ((probe, self._probe(prober, probe, 0)) for probe in probes)
            return
        slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(prober.width):
            slots.put(slot)

        def in_a_slot(probe: Operators) -> ProbeAnswer:
            slot = slots.get()
            try:
                return self._probe(prober, probe, slot)
            finally:
                slots.put(slot)

        with ThreadPoolExecutor(prober.width) as pool:
            futures = {pool.submit(in_a_slot, probe): probe for probe in probes}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _probe(self, prober: Prober, enabled: Operators, slot: int) -> ProbeAnswer:
        answer = prober.probe(enabled, slot)
        self._store.put(prober.profile, enabled, answer)
        return answer

    def _note(
        self, prober: Prober, enabled: Operators, answer: ProbeAnswer, *, cached: bool
    ) -> None:
        self._probes.append(probe_of(enabled, self._task.operators, prober.profile, answer))
        self._cached += cached
        spent = "known already" if cached else f"{answer.seconds:.0f} s"
        minutes = (self._clock() - self._started) / 60
        suspects = f"; {len(self._question.suspects)} suspects" if self._question else ""
        self._say(
            f"probe {len(self._probes)}, {len(enabled)} of {len(self._task.operators)} on: "
            f"{answer.verdict}, {answer.detail} ({spent}{suspects}; "
            f"{minutes:.1f} of {self._task.budget_s / 60:g} min)"
        )

    def _result(self, status: BisectStatus, found: Culprits | None) -> BisectResult:
        sets = found.failing_sets if found else ()
        if self._question and not found:
            sets = self._question.failing_sets
        return BisectResult(
            status=status,
            sentence=_sentence(status, sets, found.exclusion if found else frozenset()),
            subject=self._task.subject,
            level=self._task.level,
            operators=tuple(sorted(self._task.operators)),
            failing_sets=tuple(tuple(sorted(failing)) for failing in sets),
            exclusion=tuple(sorted(found.exclusion)) if found else (),
            maskings=tuple(
                MaskedFault(
                    failing=tuple(sorted(masked.failing)),
                    disabled=tuple(sorted(frozenset(self._task.operators) - masked.passing)),
                )
                for masked in (found.maskings if found else ())
            ),
            suspects=tuple(sorted(self._question.suspects)) if self._question else (),
            checks=self._checks,
            probes=tuple(self._probes),
            cached=self._cached,
            rounds=self._rounds,
            starts=sum(probe.answer.starts for probe in self._probes),
            probe_seconds=sum(probe.answer.seconds for probe in self._probes),
        )


def _named(found: Culprits) -> str:
    return _sentence("found", found.failing_sets, found.exclusion)


def _sentence(status: BisectStatus, sets: Collection[Operators], exclusion: Operators) -> str:
    at_fault = "; ".join(
        f"{together(failing)} {'fail only together' if len(failing) > 1 else 'fails alone'}"
        for failing in sets
    )
    rest = f"without {', '.join(sorted(exclusion))} all others pass"
    return {
        "found": f"{at_fault}; {rest}",
        "not_confirmed": f"asked again, not everything holds of: {at_fault}; {rest}",
        "nothing_fails": "with all operators on it passes, so there is nothing to find",
        "no_operator": "it fails with no operator on, so the fault is elsewhere",
        "budget_ended": f"the budget ended first; known so far: {at_fault or 'no failing set'}",
    }[status]
