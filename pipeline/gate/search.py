"""Which operators are at fault: found by asking whether a set of operators, switched on alone, fails.

`find_culprits` is a generator. It yields a Question (sets to probe, at most `width` at once), is sent
`{set: fails}`, and returns Culprits. It starts nothing and waits for nothing: the caller runs the probes, one after
another or together, takes answers from a cache, or stops asking when a budget is spent.

Method. Between a set that passes and a larger one that fails, bisection finds the operator whose arrival makes it
fail; that one belongs to a minimal failing set. Is it not enough alone, the same is done again with it switched on
(Junker's QuickXplain, AAAI 2004, with bisection in place of recursion). Then a smallest exclusion that hits all failing
sets found so far is tried, and what still fails with it holds the next failing set (implicit hitting sets: Reiter,
Artificial Intelligence 32, 1987). The last exclusion hits every failing set and is smallest for some of them, hence
smallest for all. Every step rests on probes that were made, none on monotony: where one operator masks the fault of
another, the search still ends with an exclusion that passes, and says what it saw.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Literal, TypeVar

from pipeline.gate.hitting import smallest_hitting_set

Operators = frozenset[str]
Fails = Mapping[Operators, bool]
T = TypeVar("T")
Steps = Generator["Question", Fails, T]

NOTHING: Operators = frozenset()
# A likely operator counts as this many others when suspects are halved: about 3 probes less when the guess is
# right, 1 to 2 more when it is wrong.
LIKELY_WEIGHT = 32


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to probe next, and how far the search is."""

    probes: tuple[Operators, ...]  # operators switched on; none was asked before
    suspects: Operators  # the next culprit is among these
    failing_sets: tuple[Operators, ...]  # found so far


@dataclass(frozen=True, kw_only=True)
class Masking:
    """A failing set that passes when more is switched on: one operator hides another's fault."""

    failing: Operators
    passing: Operators


@dataclass(frozen=True, kw_only=True)
class Culprits:
    """`nothing_fails`: all operators together pass. `no_operator`: the server fails with none switched on."""

    status: Literal["found", "nothing_fails", "no_operator"]
    failing_sets: tuple[Operators, ...]  # each fails alone, and passes without any one of it
    exclusion: Operators  # all operators but these pass
    maskings: tuple[Masking, ...]  # empty: the exclusion is proven to be a smallest one
    probes: int
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One probe that an answer stands on."""

    enabled: Operators
    fails: bool
    says: str


def find_culprits(
    operators: Iterable[str], *, width: int = 1, likely: Collection[str] = ()
) -> Steps[Culprits]:
    """`likely` operators are suspected first; a wrong guess costs probes, never the answer."""
    return _Search(operators, width, likely).run()


def claims(found: Culprits, operators: Iterable[str]) -> tuple[Claim, ...]:
    """What must hold for the answer to be right; to be probed anew, in the way that counts."""
    rest = frozenset(operators) - found.exclusion
    wanted = [Claim(enabled=rest, fails=False, says="everything but the exclusion passes")]
    for failing in found.failing_sets:
        named = " + ".join(sorted(failing))
        wanted.append(Claim(enabled=failing, fails=True, says=f"{named} alone fails"))
        for smaller in (failing - {name} for name in sorted(failing)):
            says = f"{' + '.join(sorted(smaller))} alone passes" if smaller else "none on passes"
            wanted.append(Claim(enabled=smaller, fails=False, says=says))
    return tuple({claim.enabled: claim for claim in wanted}.values())


def maskings(fails: Fails) -> tuple[Masking, ...]:
    """For every failing set that contains no other, the smallest passing set around it, if there is one."""
    failing = sorted((s for s in fails if fails[s]), key=_by_size)
    passing = sorted((s for s in fails if not fails[s]), key=_by_size)
    smallest = [s for s in failing if not any(other < s for other in failing)]
    around = {s: next((p for p in passing if s < p), None) for s in smallest}
    return tuple(Masking(failing=s, passing=p) for s, p in around.items() if p is not None)


def _by_size(operators: Operators) -> tuple[int, list[str]]:
    return len(operators), sorted(operators)


class _Search:
    def __init__(self, operators: Iterable[str], width: int, likely: Collection[str]) -> None:
        if width < 1:
            raise ValueError(f"at least one probe at a time, got {width}")
        self._order = sorted(set(operators), key=lambda name: (name not in likely, name))
        self._all = frozenset(self._order)
        self._likely = frozenset(likely) & self._all
        self._width = width
        self._fails: dict[Operators, bool] = {}
        self._failing_sets: tuple[Operators, ...] = ()
        self._rounds = 0

    def run(self) -> Steps[Culprits]:
        # If the guess is right, these two answer everything at once.
        guess = [self._all - self._likely, self._likely] if self._likely else []
        spare = [*guess, *self._cuts(NOTHING, self._all)]
        yield from self._ask([self._all, NOTHING], suspects=self._all, spare=spare)
        if self._fails[NOTHING]:
            return self._ended("no_operator", NOTHING)
        if not self._fails[self._all]:
            return self._ended("nothing_fails", NOTHING)
        exclusion = NOTHING
        while self._fails[self._all - exclusion]:
            found = yield from self._minimal_failing_set(self._all - exclusion)
            self._failing_sets += (found,)
            exclusion = smallest_hitting_set(self._failing_sets)
            yield from self._ask([self._all - exclusion], suspects=self._all - exclusion)
        # Each of the exclusion put back must fail again; only masking lets one pass.
        putting_back = [self._all - (exclusion - {name}) for name in sorted(exclusion)]
        yield from self._ask(putting_back, suspects=exclusion)
        return self._ended("found", exclusion)

    def _minimal_failing_set(self, failing: Operators) -> Steps[Operators]:
        members = NOTHING
        while True:
            low, high = self._bracket(members, failing)
            low, arrived = yield from self._narrow(low, high, members)
            failing, members = low | {arrived}, members | {arrived}
            yield from self._ask(
                [members],
                suspects=members,
                spare=[self._excluding(members), *self._cuts(members, failing)],
            )
            if self._fails[members]:
                return (yield from self._without_bystanders(members))

    def _narrow(
        self, low: Operators, high: Operators, members: Operators
    ) -> Steps[tuple[Operators, str]]:
        """From `low` that passes inside `high` that fails: a set that passes, and the operator that makes it fail."""
        while len(high - low) > 1:
            chain, suspects = self._cuts(low, high), high - low
            spare = self._next(suspects, members) if len(suspects) < self._width else []
            yield from self._ask(chain, suspects=suspects, spare=spare)
            steps = pairwise([low, *chain, high])
            low, high = next((passes, fails) for passes, fails in steps if self._fails[fails])
        (arrived,) = high - low
        return low, arrived

    def _next(self, suspects: Operators, members: Operators) -> list[Operators]:
        """What is asked once the suspects are narrowed to one: that one alone, and everything without it."""
        alone = [members | {name} for name in self._sorted(suspects)]
        return [*alone, *(self._excluding(one) for one in alone)]

    def _without_bystanders(self, failing: Operators) -> Steps[Operators]:
        """Drop what a failing set does not need; only masking leaves anything to drop."""
        while True:
            smaller = [failing - {name} for name in sorted(failing)]
            yield from self._ask(smaller, suspects=failing)
            still_fails = next((part for part in smaller if self._fails[part]), None)
            if still_fails is None:
                return failing
            failing = still_fails

    def _bracket(self, inner: Operators, outer: Operators) -> tuple[Operators, Operators]:
        """The largest set probed as passing between the two, and the smallest probed as failing around that."""
        between = [known for known in self._fails if inner <= known <= outer]
        low = max((s for s in between if not self._fails[s]), key=lambda s: (len(s), sorted(s)))
        high = min((s for s in between if self._fails[s] and low < s), key=_by_size)
        return low, high

    def _cuts(self, low: Operators, high: Operators) -> list[Operators]:
        """Up to `width` growing sets between the two, so that the suspects fall into parts of equal weight."""
        suspects = self._sorted(high - low)
        weights = [LIKELY_WEIGHT if name in self._likely else 1 for name in suspects]
        reached = list(accumulate(weights))
        parts = self._width + 1
        ends: list[int] = []
        for part in range(1, parts):
            end = bisect_left(reached, reached[-1] * part / parts) + 1 if reached else 0
            end = max(end, ends[-1] + 1 if ends else 1)
            if end < len(suspects):
                ends.append(end)
        return [low | frozenset(suspects[:end]) for end in ends]

    def _excluding(self, next_failing: Operators) -> Operators:
        """What is left on when this set, too, is hit."""
        return self._all - smallest_hitting_set([*self._failing_sets, next_failing])

    def _sorted(self, operators: Operators) -> list[str]:
        return [name for name in self._order if name in operators]

    def _ask(
        self, wanted: Sequence[Operators], *, suspects: Operators, spare: Sequence[Operators] = ()
    ) -> Steps[None]:
        """Ask what is not known yet, `width` sets at a time; slots left over go to `spare`."""
        unknown = [probe for probe in dict.fromkeys(wanted) if probe not in self._fails]
        while unknown:
            known = {*self._fails, *unknown}
            batch = [*unknown, *(probe for probe in dict.fromkeys(spare) if probe not in known)]
            batch, unknown = batch[: self._width], unknown[self._width :]
            self._rounds += 1
            fails = yield Question(
                probes=tuple(batch), suspects=suspects, failing_sets=self._failing_sets
            )
            self._fails |= {probe: fails[probe] for probe in batch}

    def _ended(
        self, status: Literal["found", "nothing_fails", "no_operator"], exclusion: Operators
    ) -> Culprits:
        return Culprits(
            status=status,
            failing_sets=self._failing_sets,
            exclusion=exclusion,
            maskings=maskings(self._fails),
            probes=len(self._fails),
            rounds=self._rounds,
        )
