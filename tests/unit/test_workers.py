"""Work side by side: results in order, and everything cut off when one thread fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from pipeline import workers
from pipeline.workers import per_thread, side_by_side


def never() -> bool:
    raise AssertionError("nothing was to be cut off")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts again after 20 ms, where a release gives a thread 250."""
    monkeypatch.setattr(workers, "CUT_AGAIN_S", 0.02)


def test_results_come_in_the_order_of_the_works_and_all_ran_at_once() -> None:
    together = threading.Barrier(3, timeout=10)

    def work(number: int) -> int:
        together.wait()
        time.sleep((3 - number) / 100)
        return number

    works = [lambda number=number: work(number) for number in range(3)]
    assert side_by_side(works, never) == [0, 1, 2]


def test_one_alone_runs_where_it_is_called() -> None:
    assert side_by_side([threading.get_ident], never) == [threading.get_ident()]


def test_the_error_of_one_ends_the_others_and_is_raised() -> None:
    told, ended = threading.Event(), list[str]()

    def waits() -> None:
        told.wait(timeout=10)
        ended.append("ended")

    def fails() -> None:
        raise LookupError("a bug")

    def cut() -> bool:
        told.set()
        return True

    with pytest.raises(LookupError, match="a bug"):
        side_by_side([waits, fails, waits], cut)
    assert ended == ["ended", "ended"]


@pytest.mark.usefixtures("hasty")
def test_what_starts_after_the_first_cut_is_cut_too() -> None:
    cuts, late = list[float](), threading.Event()

    def cut() -> bool:
        cuts.append(time.monotonic())
        if len(cuts) > 1:
            late.set()
        return False

    def fails() -> bool:
        raise LookupError

    with pytest.raises(LookupError):
        side_by_side([lambda: late.wait(timeout=10), fails], cut)
    assert late.is_set()


def seconds_until_left(cut: Callable[[], bool]) -> float:
    """One work fails, the other waits for what nobody can end."""
    ever = threading.Event()

    def fails() -> bool:
        raise LookupError

    started = time.monotonic()
    with pytest.raises(LookupError):
        side_by_side([lambda: ever.wait(timeout=30), fails], cut)
    seconds = time.monotonic() - started
    ever.set()
    return seconds


def test_a_thread_that_does_not_end_and_leaves_nothing_behind_is_left_at_once() -> None:
    assert seconds_until_left(lambda: False) < 2


@pytest.mark.usefixtures("hasty")
def test_a_thread_that_has_to_tidy_is_waited_for_until_it_has() -> None:
    found = iter([True, False, True, False, False])
    assert seconds_until_left(lambda: next(found)) < 5
    assert list(found) == []


@pytest.mark.usefixtures("hasty")
def test_a_thread_that_does_not_end_is_waited_for_no_longer_than_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "PATIENCE_S", 0.2)
    assert seconds_until_left(lambda: True) < 5


def test_a_client_is_made_once_for_each_thread() -> None:
    made = per_thread(lambda host: (host, threading.get_ident()))
    assert made("a") is made("a")
    (there,) = [*side_by_side([lambda: made("a"), lambda: made("b")], never)][:1]
    assert there != made("a")
    assert made("b") != made("a")
