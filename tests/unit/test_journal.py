"""The journal of tag moves, and the lock that lets one process at a time write one."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import WorldError
from pipeline.release_index import TagMove, Tombstone
from pipeline.world.host_lock import host_lock
from pipeline.world.indexes import Indexes
from pipeline.world.journal import Burial, Commit, Journal, Operation, Restore, open_journals
from pipeline.world.shelf import Shelf
from pipeline.world.tag_moves import finish_or_undo
from tests.fakes_registry import FakeRegistry

OPERATION = Operation(
    kind="promote",
    release="2026.11.1",
    registry="registry.test",
    index_repository="toys/releases",
    commit=Commit(repository="toys/releases", tag="rel-2026.11.1", digest="sha256:i"),
    moves=(TagMove(repository="toys/a", tag="2026.11.1", before=None, after="sha256:a"),),
)


def indexes(repository: str = "toys/releases", host: str = "registry.test") -> Indexes:
    return Indexes(registry=FakeRegistry(host), index_repository=repository)


def test_a_journal_is_open_until_it_ends_and_is_read_back_as_written(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path / "promotions", OPERATION)
    assert [one.operation() for one in open_journals(tmp_path / "promotions")] == [OPERATION]
    journal.write("move", tag="2026.11.1")
    journal.end("done")
    assert open_journals(tmp_path / "promotions") == ()
    (closed,) = (tmp_path / "promotions").iterdir()
    assert closed.name.endswith("-promote-2026.11.1.jsonl")
    events = [event["event"] for event in Journal(closed).events()]
    assert events == ["begin", "move", "done"]


def test_a_line_that_a_kill_cut_off_is_no_event(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path, OPERATION)
    with journal.path.open("a") as file:
        file.write('{"event": "comm')
    assert [event["event"] for event in journal.events()] == ["begin"]


def test_a_journal_goes_on_after_half_a_line(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path, OPERATION)
    with journal.path.open("ab") as file:
        file.write('{"event": "mo, by Zoë'.encode()[:-1])  # a full disk cuts inside a letter, too
    assert [event["event"] for event in journal.events()] == ["begin"]
    journal.write("move", tag="2026.11.1")
    assert [event["event"] for event in journal.events()] == ["begin", "move"]
    assert journal.operation() == OPERATION


def test_a_reason_may_hold_what_unicode_takes_for_the_end_of_a_line(tmp_path: Path) -> None:
    stone = Tombstone(
        event="yanked",
        release="2026.11.1",
        cell="toys/a",
        digest="sha256:a",
        by="Ada",
        reason="wrong\u2028answers\u0085here",
        time="2026-11-24T12:00:00+00:00",
        replaced_by=None,
    )
    buried = Burial(repository="toys/a", tombstone=stone)
    asked = OPERATION.model_copy(update={"kind": "yank", "commit": None, "burials": (buried,)})
    assert Journal.begin(tmp_path, asked).operation() == asked


def test_a_journal_without_a_whole_first_line_is_closed_as_nothing_begun(tmp_path: Path) -> None:
    (tmp_path / "x-promote-1.open.jsonl").write_text('{"event": "beg')
    finish_or_undo(tmp_path, indexes(), lambda _: None)
    assert open_journals(tmp_path) == ()


def test_a_journal_of_another_registry_waits_for_that_one(tmp_path: Path) -> None:
    Journal.begin(tmp_path, OPERATION)
    finish_or_undo(tmp_path, indexes(host="other.test"), lambda _: None)
    assert len(open_journals(tmp_path)) == 1


def test_a_journal_of_another_index_of_the_registry_waits_for_that_one(tmp_path: Path) -> None:
    """Two targets of one checkout: each has a lock of its own, so the other one may be at work."""
    Journal.begin(tmp_path, OPERATION)
    finish_or_undo(tmp_path, indexes("other/releases"), lambda _: None)
    assert len(open_journals(tmp_path)) == 1
    finish_or_undo(tmp_path, indexes(), lambda _: None)
    assert open_journals(tmp_path) == ()


@pytest.mark.parametrize(
    "line",
    ['{"event": "begin", "operation": {"kind": "dance"}}', '{"event": "begin"}', '{"event": "b}'],
)
def test_a_journal_that_cannot_be_read_is_left_and_says_what_to_do(
    tmp_path: Path, line: str
) -> None:
    path = tmp_path / "x-promote-1.open.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(WorldError, match="this journal cannot be read") as caught:
        finish_or_undo(tmp_path, indexes(), lambda _: None)
    assert caught.value.where == str(path)
    assert "rename it to x-promote-1.jsonl and give the command in its name again" in str(
        caught.value.hint
    )
    assert path.exists()
    path.rename(tmp_path / "x-promote-1.jsonl")
    finish_or_undo(tmp_path, indexes(), lambda _: None)


def test_restores_that_were_done_are_not_done_again(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path, OPERATION)
    restores = [
        Restore(repository=name, digest="sha256:d", media_type="m", body="{}", tags=("t",))
        for name in ("toys/a", "toys/b")
    ]
    for restore in restores:
        journal.write("restore", manifest=restore.model_dump())
    journal.write("restored", manifest=restores[0].model_dump())
    assert journal.unfinished_restores() == (restores[1],)


def test_the_lock_is_held_by_one_and_the_next_is_told_by_whom(tmp_path: Path) -> None:
    name, told, order = f"test {tmp_path}", list[str](), list[str]()

    def second() -> None:
        with host_lock(name, told.append):
            order.append("second")

    with host_lock(name):
        thread = threading.Thread(target=second)
        thread.start()
        while not told:
            assert thread.is_alive()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert told[0].startswith("waiting for process ")


def test_one_checkout_has_one_promoter_though_their_temporary_folders_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under sudo, or in a service: the second would close the journal of the first, who is at work."""
    shelf = Shelf(
        registry=FakeRegistry(), index_repository="toys/releases", journals=tmp_path / "journals"
    )
    told, order = list[str](), list[str]()

    def second() -> None:
        with shelf.alone(told.append):
            order.append("second")

    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "one"))
    with shelf.alone(told.append):
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
        thread = threading.Thread(target=second)
        thread.start()
        while not told and thread.is_alive():
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
