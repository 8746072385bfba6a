"""Whether two stacks can be compared at all: each fault makes the verdict invalid, never a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pipeline.results import ItemRow

NAMED_ITEMS = 3


def policy_faults(
    stacks: tuple[str, str],
    margins: Mapping[str, float],
    chance: Mapping[str, float],
    alpha: float,
) -> Iterator[str]:
    """Faults of what was asked for, before any row is looked at."""
    if stacks[0] == stacks[1]:
        yield f"reference and candidate are the same stack, {stacks[0]}"
    if not margins:
        yield "no benchmark has a margin"
    if not 0 < alpha < 0.5:
        yield f"alpha is {alpha}, expected a number above 0 and below 0.5"
    for name, margin in margins.items():
        if not 0 < margin <= 1:
            yield f"{name}: the margin is {margin}, expected a number above 0 and at most 1"
        if name not in chance:
            yield f"{name}: the score of guessing is not known"


def row_faults(
    rows: Sequence[ItemRow], stacks: tuple[str, str], margins: Mapping[str, float]
) -> Iterator[str]:
    """Faults of the rows of the compared stacks: `stacks` is reference, candidate."""
    for name in sorted({row.benchmark for row in rows} - set(margins)):
        yield f"{name}: has rows but no margin"
    counts = Counter((row.stack, row.benchmark, row.item) for row in rows)
    for (stack, name, item), count in counts.items():
        if count > 1:
            yield f"{name}: {stack} answered {item} {count} times"
    for row in rows:
        if row.score not in (0, 1):
            yield f"{row.benchmark}: {row.stack} scored {row.score} on {row.item}, expected 0 or 1"
    for name in margins:
        yield from _pairing_faults([row for row in rows if row.benchmark == name], stacks, name)
    for stack in dict.fromkeys(stacks):
        errors = [row.error for row in rows if row.stack == stack]
        if errors and all(errors):
            yield f"{stack} answered none of {len(errors)} items; the first error: {errors[0]}"


def _pairing_faults(rows: Sequence[ItemRow], stacks: tuple[str, str], name: str) -> Iterator[str]:
    if not rows:
        yield f"{name}: no stack has rows"
        return
    reference, candidate = (
        {row.item: row for row in rows if row.stack == stack} for stack in stacks
    )
    for stack, missing in (
        (stacks[1], reference.keys() - candidate.keys()),
        (stacks[0], candidate.keys() - reference.keys()),
    ):
        if missing:
            yield f"{name}: {stack} lacks {_named(missing)}"
    # A failed item may have failed before its prompt was whole; it scores 0 whatever was sent.
    unequal = {
        item
        for item in reference.keys() & candidate.keys()
        if not reference[item].error
        and not candidate[item].error
        and reference[item].prompt_sha256 != candidate[item].prompt_sha256
    }
    if unequal:
        yield f"{name}: the stacks got different prompts for {_named(unequal)}"


def _named(items: set[str]) -> str:
    shown = ", ".join(sorted(items)[:NAMED_ITEMS])
    more = ", …" if len(items) > NAMED_ITEMS else ""
    return f"{len(items)} {'item' if len(items) == 1 else 'items'} ({shown}{more})"
