"""Resources under real threads: never more than there is, nothing lost, nobody left waiting."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StoppedError
from pipeline.limits import EVERY_OTHER
from pipeline.resources import Resources

NAMES = ("build", "push", "cpu", "port 9010")


class Seen:
    """Counts who is in, and keeps the most there ever were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Counter[str]()
        self.most = Counter[str]()
        self.done = 0

    def enter(self, names: tuple[str, ...]) -> None:
        with self._lock:
            self._now.update(names)
            self.most |= self._now

    def leave(self, names: tuple[str, ...]) -> None:
        with self._lock:
            self._now.subtract(names)
            self.done += 1


def run(limits: Mapping[str, int], asked: list[tuple[str, ...]]) -> Seen:
    resources, seen = Resources(limits), Seen()

    def work(names: tuple[str, ...]) -> None:
        with resources.held(*names):
            seen.enter(names)
            time.sleep(0.001)
            seen.leave(names)

    threads = [threading.Thread(target=work, args=(names,)) for names in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
        assert not thread.is_alive(), "somebody waits for ever"
    return seen


@settings(deadline=None, max_examples=40)
@given(
    limits=st.dictionaries(st.sampled_from(NAMES[:3]), st.integers(1, 3)),
    asked=st.lists(
        st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple), max_size=12
    ),
)
def test_never_more_than_there_is_and_everybody_gets_a_turn(
    limits: dict[str, int], asked: list[tuple[str, ...]]
) -> None:
    seen = run(limits, asked)
    assert seen.done == len(asked)
    for name, most in seen.most.items():
        assert most <= limits.get(name, EVERY_OTHER)


def test_as_many_as_there_are_go_at_once() -> None:
    resources, inside = Resources({"push": 3}), threading.Barrier(3, timeout=10)

    def work() -> None:
        with resources.held("push"):
            inside.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not inside.broken


def test_who_waits_says_for_what_and_how_long_it_took() -> None:
    resources, told = Resources({"cpu": 1}), list[str]()
    held = threading.Event()

    def work() -> None:
        with resources.held("cpu", waiting=told.append):
            held.set()
            time.sleep(0.1)

    first = threading.Thread(target=work)
    first.start()
    held.wait()
    with resources.held("cpu", "port 9010", waiting=told.append) as waited_s:
        assert 0.05 < waited_s < 5
    first.join()
    assert told == ["waits for cpu"]


def test_a_stop_ends_every_wait_and_lets_nothing_begin() -> None:
    resources, ended = Resources({"cpu": 1}), list[str]()

    def work() -> None:
        with pytest.raises(StoppedError), resources.held("cpu"):
            pass
        ended.append("told")

    with resources.held("cpu"):
        waiting = threading.Thread(target=work)
        waiting.start()
        time.sleep(0.05)
        resources.stop()
        waiting.join(timeout=10)
    assert ended == ["told"]
    with pytest.raises(StoppedError), resources.held():
        pass


def test_what_is_held_is_given_back_after_an_error() -> None:
    resources = Resources({"build": 1})
    with pytest.raises(LookupError), resources.held("build"):
        raise LookupError
    with resources.held("build") as waited_s:
        assert waited_s < 1
