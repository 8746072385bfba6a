"""What a search for culprits will cost, told before it begins: the search itself, for a culprit made up. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pipeline.gate.search import Culprits, Operators, find_culprits

PLACES = 16  # of the one culprit, spread over all operators


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The most that one culprit takes; several independent ones take about as much each."""

    probes: int
    rounds: int  # of probes side by side


def forecast(operators: Sequence[str], *, width: int, likely: Collection[str] = ()) -> Forecast:
    places = operators[:: max(1, len(operators) // PLACES)]
    found = [simulated(operators, [frozenset({name})], width, likely) for name in places]
    return Forecast(
        probes=max((one.probes for one in found), default=0),
        rounds=max((one.rounds for one in found), default=0),
    )


def simulated(
    operators: Sequence[str],
    families: Iterable[Operators],
    width: int,
    likely: Collection[str] = (),
) -> Culprits:
    """A whole search where a set fails when it holds one of the families."""
    families = tuple(families)
    search = find_culprits(operators, width=width, likely=likely)
    try:
        question = next(search)
        while True:
            fails = {p: any(family <= p for family in families) for p in question.probes}
            question = search.send(fails)
    except StopIteration as stop:
        found: Culprits = stop.value
        return found
