"""GSM8K (MIT) as a choice by likelihood: the gold solution, or the same one with another number in it.

A small model near 0 by generation can still tell them apart, so that the set has power for it. The wrong number stands
where the gold solution gives the result of a step; nothing after it is changed, so what follows no longer fits.
"""

from __future__ import annotations

import hashlib
import re

WRONG_CHOICES = 3
_NUMBER = r"\d[\d,]*(?:\.\d+)?"
_RESULT = re.compile(rf"<<[^>]*>>\$?({_NUMBER})")  # <<16-3-4=9>>9
_ANY = re.compile(rf"({_NUMBER})")
_CALCULATION = re.compile(r"<<[^>]*>>")


def choices(item: str, solution: str) -> tuple[str, ...]:
    """The gold solution first, then the wrong ones; chosen by the hash of the item's id.

    Raises ValueError when the solution has no number.
    """
    steps = solution.rpartition("####")[0].rstrip() or solution
    places = [found.span(1) for found in _RESULT.finditer(steps)]
    # 18 of the 1,319 solutions mark no calculation; of those the last number is taken.
    places = places or [found.span(1) for found in _ANY.finditer(steps)][-1:]
    if not places:
        raise ValueError("the solution has no number")
    start, end = places[_draw(item, "place") % len(places)]
    wrong = [f"{steps[:start]}{n}{steps[end:]}" for n in _others(item, steps[start:end])]
    return tuple(_CALCULATION.sub("", text) for text in (steps, *wrong))


def _others(item: str, number: str) -> list[str]:
    """Other numbers of the same length: the first digit that is not 0 becomes another one."""
    at = next((i for i, sign in enumerate(number) if sign in "123456789"), 0)
    digits = [digit for digit in "123456789" if digit != number[at]]
    order = sorted(digits, key=lambda digit: _draw(item, digit))
    return [f"{number[:at]}{digit}{number[at + 1 :]}" for digit in order[:WRONG_CHOICES]]


def _draw(item: str, what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{item}\0{what}".encode()).digest()[:8])
