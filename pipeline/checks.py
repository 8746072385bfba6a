"""Checks that run in order, each with what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.smoke_result import Check

Outcome = tuple[bool, str]


class Checks:
    """Runs checks in order and keeps what each has seen."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.done: list[Check] = []
        self._say = say

    def run(self, name: str, check: Callable[[], Outcome]) -> None:
        self.timed(name, check)

    def timed(self, name: str, check: Callable[[], Outcome]) -> float:
        self._say(name)
        started = time.monotonic()
        try:
            passed, seen = check()
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            passed, seen = False, f"an answer of another shape than expected: {error!r}"
        seconds = round(time.monotonic() - started, 2)
        self.done.append(Check(name=name, passed=passed, seen=seen, seconds=seconds))
        return seconds

    def all_passed(self) -> bool:
        return all(check.passed for check in self.done)
