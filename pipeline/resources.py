"""What cells that run side by side share of this host: so many builds, pushes and servers at once, never more."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from pipeline.errors import StoppedError
from pipeline.limits import DEFAULTS, EVERY_OTHER


class Resources:
    """Counts what is taken. One of these is shared by all threads of a release."""

    def __init__(self, limits: Mapping[str, int] = DEFAULTS) -> None:
        self._limits = limits
        self._taken = Counter[str]()
        self._changed = threading.Condition()
        self._is_stopped = False

    @contextmanager
    def held(self, *names: str, waiting: Callable[[str], None] = lambda _: None) -> Iterator[float]:
        """Take one of each, all together or none, so that nobody waits with something in hand.

        Yields the seconds that it waited; `waiting` is told for what, once. Raises StoppedError after `stop`.
        """
        began = time.monotonic()
        with self._changed:
            if busy := [name for name in names if not self._is_free(name)]:
                waiting(f"waits for {', '.join(busy)}")
            self._changed.wait_for(lambda: self._is_stopped or all(map(self._is_free, names)))
            self.refuse_stopped()
            self._taken.update(names)
        try:
            yield time.monotonic() - began
        finally:
            with self._changed:
                self._taken.subtract(names)
                self._changed.notify_all()

    def most(self, name: str) -> int:
        """How many of a resource there are."""
        return self._limits.get(name, EVERY_OTHER)

    def stop(self) -> None:
        """From now on nothing can be taken; who waits is told so."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def refuse_stopped(self) -> None:
        if self._is_stopped:
            raise StoppedError("the run was interrupted", hint="run the same command again")

    def _is_free(self, name: str) -> bool:
        return self._taken[name] < self.most(name)
