"""Prints the tables of docs/accuracy.md: what a margin lets pass, and how often.

python -m benchmarks.margin_table
"""

from __future__ import annotations

from bisect import bisect_left

from pipeline.gate.paired import mcnemar_harm, tango_z, z_of
from pipeline.gate.planning import equal_pass_probability, has_power, pass_probability
from pipeline.gate.spending import look_level

ALPHA = 0.05
ITEMS = 100
SETS = 3
LOOKS = (1, 2, 4)
POLICY_ALPHA, POWER_MARGINS = 0.04, 3
# By benchmark of cpu/smollm2: score of guessing, items, margin.
SMOLLM2 = {
    "gsm8k-steps": (0.25, 600, 0.03),
    "hellaswag": (0.25, 100, 0.08),
    "truthfulqa": (0.2228, 100, 0.08),
    "gsm8k": (0.0, 100, 0.08),
}


def main() -> None:
    print(f"P(pass) of an equal candidate, {SETS} sets of {ITEMS} items, alpha {ALPHA}:\n")
    shares = (0.01, 0.02, 0.03, 0.04, 0.05, 0.10)
    print("| margin | " + " | ".join(f"flips {share:.0%}" for share in shares) + " |")
    print("|---" * (len(shares) + 1) + "|")
    for margin in (0.03, 0.05, 0.06, 0.07, 0.08, 0.09, 0.10):
        cells = [equal_pass_probability(ITEMS, margin, share, ALPHA, SETS) for share in shares]
        print(f"| {margin:.2f} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")

    print("\nSmallest margin at which it passes with .9 at flips 3 %, by items per set:\n")
    print(f"| items per set | margin | P(pass, {SETS} sets) |")
    print("|---|---|---|")
    for items in (100, 200, 400, 800, 1319):
        margin, probability = smallest_margin(items)
        print(f"| {items} | {margin:.3f} | {probability:.3f} |")

    print("\nP(pass) of one set of 100 at margin .08, for a true loss:\n")
    print("| true loss | P(pass) |")
    print("|---|---|")
    for loss in (0.02, 0.04, 0.06, 0.08, 0.10, 0.15):
        share = pass_probability(
            ITEMS, 0.08, lost_share=loss + 0.005, gained_share=0.005, alpha=ALPHA, sets=1
        )
        print(f"| {loss:.2f} | {share:.3f} |")

    print("\nFlips with which one set of 100 passes at margin .08 (and fails, among three sets):\n")
    print("| gained | passes up to lost | fails from lost |")
    print("|---|---|---|")
    for gained in range(6):
        print(f"| {gained} | {most_lost(gained)} | {first_harm(gained)} |")

    level = look_level(POLICY_ALPHA, LOOKS)
    print(
        f"\nFewest right answers of the reference for power, three margins at level {level:.4f}:\n"
    )
    print("| benchmark | chance | items | margin | right |")
    print("|---|---|---|---|---|")
    for name, (chance, n, margin) in SMOLLM2.items():
        right = fewest_right(chance, n, margin, level)
        print(f"| {name} | {chance:.4f} | {n} | {margin:.2f} | {right} |")

    print(f"\nP(pass) of an equal candidate at the first look, margin .03, level {level:.4f}:\n")
    flips = (0.01, 0.02, 0.03, 0.04, 0.05)
    print("| items | " + " | ".join(f"flips {share:.0%}" for share in flips) + " |")
    print("|---" * (len(flips) + 1) + "|")
    for items in (200, 400, 600, 800, 1299):
        cells = [equal_pass_probability(items, 0.03, share, level, 1) for share in flips]
        print(f"| {items} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


def smallest_margin(items: int) -> tuple[float, float]:
    """To a tenth of a point; a wider margin never passes less."""

    def passes(thousandths: int) -> float:
        return equal_pass_probability(items, thousandths / 1000, 0.03, ALPHA, SETS)

    found = 1 + bisect_left(range(1, 1000), 0.9, key=passes)
    return found / 1000, passes(found)


def most_lost(gained: int) -> int:
    z = z_of(ALPHA)
    return max(lost for lost in range(50) if tango_z(lost, gained, ITEMS, -0.08) > z)


def first_harm(gained: int) -> int:
    return next(lost for lost in range(100) if mcnemar_harm(lost, gained) <= ALPHA / SETS)


def fewest_right(chance: float, n: int, margin: float, level: float) -> int:
    return next(
        right
        for right in range(n + 1)
        if has_power(
            right, n, chance=chance, margin=margin, power_margins=POWER_MARGINS, alpha=level
        )
    )


if __name__ == "__main__":
    main()
