"""Whether two stacks can be compared at all: each fault makes the verdict invalid, never a pass."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from pipeline.accuracy_result import ItemRow
from pipeline.policy import Gate

NAMED_ITEMS = 3
Conditions = Mapping[str, Mapping[str, str]]  # by stack, by name


def policy_faults(
    stacks: tuple[str, str], gate: Gate, chance: Mapping[str, float]
) -> Iterator[str]:
    """Faults of what was asked for, before any row is looked at."""
    if stacks[0] == stacks[1]:
        yield f"reference and candidate are the same stack, {stacks[0]}"
    if not chance:
        yield "no benchmark was asked for"
    levels = {"alpha": gate.alpha, "pooled_alpha": gate.pooled_alpha, "harm_alpha": gate.harm_alpha}
    for name, level in levels.items():
        if level is not None and not 0 < level < 0.5:
            yield f"{name} is {level}, expected a number above 0 and below 0.5"
    margins = {name: gate.margin_of(name) for name in chance}
    if gate.pooled_margin is not None:
        margins["all benchmarks together"] = gate.pooled_margin
    for name, margin in margins.items():
        if not 0 < margin <= 1:
            yield f"{name}: the margin is {margin}, expected a number above 0 and at most 1"


def condition_faults(conditions: Conditions, stacks: tuple[str, str]) -> Iterator[str]:
    """`conditions`: what must be equal (weights, image, length limit …), as each stack had it."""
    reference, candidate = (conditions.get(stack, {}) for stack in stacks)
    for name in sorted({*reference, *candidate}):
        if reference.get(name) != candidate.get(name):
            yield (
                f"{name} is {reference.get(name, '(none)')} for {stacks[0]} and "
                f"{candidate.get(name, '(none)')} for {stacks[1]}"
            )


def row_faults(
    rows: Sequence[ItemRow],
    stacks: tuple[str, str],
    benchmarks: Collection[str],
    absence_limit: float,
) -> Iterator[str]:
    """Faults of the rows of the compared stacks: `stacks` is reference, candidate.

    `absence_limit`: the share of its requests that a reference may leave unanswered.
    """
    by_benchmark: dict[str, list[ItemRow]] = defaultdict(list)
    for row in rows:
        by_benchmark[row.benchmark].append(row)
    for name in sorted(by_benchmark.keys() - set(benchmarks)):
        yield f"{name}: has rows but was not asked for"
    counts = Counter((row.stack, row.benchmark, row.item, row.repeat) for row in rows)
    for (stack, name, item, repeat), count in counts.items():
        if count > 1:
            yield f"{name}: {stack} answered {item} {count} times in run {repeat}"
    for row in rows:
        if not 0 <= row.score <= 1:
            yield f"{row.benchmark}: {row.stack} scored {row.score} on {row.item}, expected 0 to 1"
    for name in benchmarks:
        yield from _benchmark_faults(by_benchmark[name], stacks, name, absence_limit)
    for stack in dict.fromkeys(stacks):
        errors = [row.error for row in rows if row.stack == stack]
        if errors and all(errors):
            yield f"{stack} answered none of {len(errors)} items; the first error: {errors[0]}"


def _benchmark_faults(
    rows: Sequence[ItemRow], stacks: tuple[str, str], name: str, absence_limit: float
) -> Iterator[str]:
    if not rows:
        yield f"{name}: no stack has rows"
        return
    runs = sorted({row.repeat for row in rows})
    if runs != list(range(len(runs))):
        yield f"{name}: runs are numbered {', '.join(map(str, runs))}, expected 0, 1, 2 …"
    for run in runs:
        reference, candidate = (
            {row.item: row for row in rows if row.stack == stack and row.repeat == run}
            for stack in stacks
        )
        yield from _pairing_faults(reference, candidate, stacks, name)
        asked = reference.keys() | candidate.keys()
        answered = sum(1 for row in reference.values() if not row.error)
        if reference and len(asked) - answered > absence_limit * len(asked):
            yield (
                f"{name}: the reference {stacks[0]} left {len(asked) - answered} of {len(asked)} "
                f"requests unanswered"
            )


def _pairing_faults(
    reference: Mapping[str, ItemRow],
    candidate: Mapping[str, ItemRow],
    stacks: tuple[str, str],
    name: str,
) -> Iterator[str]:
    """Of one run. Items that only one side lacks are missing answers, which score 0."""
    for stack, answered in zip(stacks, (reference, candidate), strict=True):
        if not answered:
            yield f"{name}: {stack} has no rows"
    alone = reference.keys() - candidate.keys(), candidate.keys() - reference.keys()
    if reference and candidate and all(alone):
        yield (
            f"{name}: the stacks got different items: {stacks[1]} lacks {_named(alone[0])}, "
            f"{stacks[0]} lacks {_named(alone[1])}"
        )
    # A failed item may have failed before its prompt was whole; it scores 0 whatever was sent.
    both = {
        item: (reference[item], candidate[item])
        for item in reference.keys() & candidate.keys()
        if not reference[item].error and not candidate[item].error
    }
    for what, unequal in (
        (
            "prompts",
            {i for i, (one, other) in both.items() if one.prompt_sha256 != other.prompt_sha256},
        ),
        ("seeds", {i for i, (one, other) in both.items() if one.seed != other.seed}),
        ("clusters", {i for i, (one, other) in both.items() if one.cluster != other.cluster}),
    ):
        if unequal:
            yield f"{name}: the stacks got different {what} for {_named(unequal)}"


def _named(items: Collection[str]) -> str:
    shown = ", ".join(sorted(items)[:NAMED_ITEMS])
    more = ", …" if len(items) > NAMED_ITEMS else ""
    return f"{len(items)} {'item' if len(items) == 1 else 'items'} ({shown}{more})"
