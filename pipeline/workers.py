"""Work side by side: a thread for each, and all of it ended when one thread or a person ends it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from queue import SimpleQueue
from typing import Generic, NoReturn, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
INTERRUPTED = 130  # exit code of a process that somebody interrupted
PATIENCE_S = 10.0  # for what was cut off to clean up
CUT_AGAIN_S = 0.25
QUIET_CUTS = 2  # one after the other that found nothing to tidy: who still waits then, may be left


class _Worker(threading.Thread, Generic[T]):
    """A daemon, so that what does not end in time does not keep the process."""

    def __init__(self, work: Callable[[], T], ended: SimpleQueue[_Worker[T]]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._ended = ended
        self.results: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.results.append(self._work())
        except BaseException as error:  # noqa: BLE001 -- raised again by the thread that waits
            self.error = error
        self._ended.put(self)


def side_by_side(works: Sequence[Callable[[], T]], cut: Callable[[], bool]) -> list[T]:
    """What each gives, in their order.

    What one of them raises, or a signal here, is raised as soon as the others have ended, or leave nothing behind:
    `cut` is called until then. It has to make their waiting fail, and says whether it found anything to tidy. One
    alone runs in this thread, and needs no cutting.
    """
    if len(works) == 1:
        return [works[0]()]
    ended = SimpleQueue[_Worker[T]]()
    workers = [_Worker(work, ended) for work in works]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            if error := ended.get().error:
                raise error
    except BaseException:
        _cut_off(workers, cut)
        raise
    return [result for worker in workers for result in worker.results]


def _cut_off(workers: Sequence[_Worker[T]], cut: Callable[[], bool]) -> None:
    """Again and again: what one of them was about to start is not there yet at the first time."""
    until, quiet = time.monotonic() + PATIENCE_S, 0
    while time.monotonic() < until and quiet < QUIET_CUTS:
        left = [worker for worker in workers if worker.is_alive()]
        quiet = 0 if cut() else quiet + 1
        if not left:
            return
        left[0].join(CUT_AGAIN_S)


def per_thread(make: Callable[P, T]) -> Callable[P, T]:
    """`functools.cache` with results for each thread alone: for clients that two threads must not share."""
    here = threading.local()

    def made(*args: P.args, **kwargs: P.kwargs) -> T:
        if not hasattr(here, "made"):
            here.made = cache(make)
        found: T = here.made(*args, **kwargs)
        return found

    return made


def leave(code: int) -> NoReturn:
    """End the process. After an interrupt nobody waits for pools whose threads still send: Python would join them."""
    sys.stdout.flush()
    sys.stderr.flush()
    if code == INTERRUPTED and threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)
