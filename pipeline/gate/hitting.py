"""Smallest hitting sets: the fewest elements of which every given set holds at least one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

Names = frozenset[str]


def smallest_hitting_set(sets: Sequence[Names]) -> Names:
    """Exact, and the same for the same sets in any order. Raises ValueError for an empty set: nothing hits it."""
    if not all(sets):
        raise ValueError("an empty set cannot be hit")
    return next(
        found
        for size in count()
        if (found := _hitting(sorted(sets, key=sorted), frozenset(), size)) is not None
    )


def _hitting(sets: Sequence[Names], chosen: Names, left: int) -> Names | None:
    """At most `left` more elements; the smallest open set is branched on, its busiest element first."""
    still_open = [names for names in sets if not names & chosen]
    if not still_open:
        return chosen
    if not left:
        return None

    def busiest_first(name: str) -> tuple[int, str]:
        return -sum(name in names for names in still_open), name

    smallest = min(still_open, key=lambda names: len(names))
    for name in sorted(smallest, key=busiest_first):
        found = _hitting(still_open, chosen | {name}, left - 1)
        if found is not None:
            return found
    return None
