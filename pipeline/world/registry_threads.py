"""Many questions to one registry at once: a connection for each thread, one login for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import TypeVar
from weakref import WeakSet

from pipeline.workers import per_thread
from pipeline.world.registry_connection import Connection

T = TypeVar("T")
R = TypeVar("R")


class Connections:
    def __init__(
        self,
        base: str,
        config: Path,
        sleep: Callable[[float], None],
        certificates: Path,
        at_once: int,
    ) -> None:
        """Raises UsageError for a base that is no host."""
        first = Connection(base, config, sleep, certificates)
        opened = WeakSet((first,))  # others end with their thread

        def connect() -> Connection:
            connection = Connection(base, config, sleep, certificates, first.login)
            opened.add(connection)
            return connection

        self._opened = opened
        self._own = per_thread(connect)
        self._askers = ThreadPoolExecutor(at_once)

    def own(self) -> Connection:
        """That of the thread that asks."""
        return self._own()

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> tuple[R, ...]:
        """What `work` gives for each, in their order; `at_once` of them side by side. `work` calls no `each` itself.

        After one that failed the others do not begin, and it is raised when those that run have ended: nothing is sent
        any more when the caller lets go of a lock. When a person ends it, nobody waits.
        """
        failed = Event()

        def one(item: T) -> R:
            if failed.is_set():
                raise CancelledError
            try:
                return work(item)
            except BaseException:
                failed.set()
                raise

        asked = [self._askers.submit(one, item) for item in items]
        try:
            wait(asked)
        except BaseException:
            failed.set()
            raise
        errors = [error for each in asked if (error := each.exception())]
        for error in errors:
            if not isinstance(error, CancelledError):
                raise error
        return tuple(each.result() for each in asked)

    def close(self) -> None:
        self._askers.shutdown(wait=False, cancel_futures=True)
        for connection in tuple(self._opened):
            connection.close()
