"""Prints the table of docs/bisect.md: probes and rounds that a search over 400 operators needs.

python -m benchmarks.search_probes
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Collection, Sequence
from math import log2

from pipeline.gate.forecast import simulated
from pipeline.gate.search import Culprits, Operators

OPERATORS = tuple(f"op{number:03}" for number in range(400))
DRAWS = 50
WIDTHS = (1, 4, 7)
LIKELY = 22  # as many as FlagGems' own log named on the H100
CASES: dict[str, Sequence[int]] = {
    "one": (1,),
    "two independent": (1, 1),
    "three independent": (1, 1, 1),
    "a pair": (2,),
    "a triple": (3,),
    "a pair and one": (2, 1),
}


def main() -> None:
    rng = random.Random(0)  # noqa: S311 -- draws cases, keeps no secret
    print(f"{len(OPERATORS)} operators, {DRAWS} draws a row, mean (largest)\n")
    heads = [f"probes, {width} at once | rounds" for width in WIDTHS]
    print(f"| culprits | 2 k log2(n/k) | {' | '.join(heads)} |")
    print("|---" * (2 + 2 * len(WIDTHS)) + "|")
    for name, sizes in CASES.items():
        drawn = [planted(sizes, rng) for _ in range(DRAWS)]
        cells = [row([searched(families, width) for families in drawn]) for width in WIDTHS]
        k = sum(sizes)
        print(
            f"| {name} | {2 * k * log2(len(OPERATORS) / k):.1f} | {' | '.join(map(' | '.join, cells))} |"
        )
    print(f"\nOne culprit, {LIKELY} operators suspected first, one probe at a time:\n")
    print("| the guess | probes |")
    print("|---|---|")
    for guess in ("right", "wrong"):
        runs = []
        for _ in range(DRAWS):
            (culprit,) = planted((1,), rng)
            others = rng.sample([name for name in OPERATORS if name not in culprit], LIKELY)
            likely = [*others[1:], *culprit] if guess == "right" else others
            runs.append(searched([culprit], 1, likely))
        print(f"| {guess} | {row(runs)[0]} |")


def planted(sizes: Sequence[int], rng: random.Random) -> list[Operators]:
    names = iter(rng.sample(OPERATORS, sum(sizes)))
    return [frozenset(next(names) for _ in range(size)) for size in sizes]


def searched(families: Sequence[Operators], width: int, likely: Collection[str] = ()) -> Culprits:
    found = simulated(OPERATORS, families, width, likely)
    if set(found.failing_sets) != set(families):
        raise AssertionError(f"{families} were planted, {found.failing_sets} found")
    return found


def row(runs: Sequence[Culprits]) -> tuple[str, str]:
    return shown([run.probes for run in runs]), shown([run.rounds for run in runs])


def shown(counts: Sequence[int]) -> str:
    return f"{statistics.mean(counts):.1f} ({max(counts)})"


if __name__ == "__main__":
    main()
