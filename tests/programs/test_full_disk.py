"""A real file system that runs full under `out/`: told as such, nothing half-written, and nobody's bug."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.canonical import room_for
from pipeline.cli import main
from pipeline.commands import COMMANDS
from pipeline.errors import CommandError, WorldError
from pipeline.options import Options
from pipeline.record import RecordStore
from pipeline.reporter import Reporter
from pipeline.stage_run import tried
from pipeline.world.command import run
from pipeline.world.pieces import Member, write_pieces
from tests.projects import toy_project
from tests.records import nvidia_record
from tests.small_disk import fill, small_disk

ROOM = 1 << 20
FULL = "cannot be written: No space left on device"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", ROOM):
        yield tmp_path / "disk"


def test_a_record_stays_as_it_was_and_is_written_once_there_is_room(disk: Path) -> None:
    store, record = RecordStore(disk), nvidia_record()
    path = store.write(record)
    fill(disk)
    changed = record.model_copy(update={"stages": record.stages.model_copy(update={"card": None})})
    with pytest.raises(WorldError, match=FULL) as told:
        store.write(changed)
    assert told.value.hint.startswith("look at the free space")
    assert store.read(record.release, record.chip, record.model) == record
    assert [one.name for one in path.parent.iterdir()] == ["record.json"]
    (disk / "filling").unlink()
    store.write(changed)
    assert store.read(record.release, record.chip, record.model) == changed


def test_a_log_that_runs_full_ends_the_stage_and_not_with_a_bug(disk: Path) -> None:
    report = Reporter(Console(file=io.StringIO()))
    fill(disk)
    with report.stage("abacus/poet", "smoke", disk / "smoke.log") as log:
        ended = tried(lambda: log.say("x" * 9000), log)
    assert isinstance(ended, WorldError)
    assert (ended.message, ended.where) == (FULL, str(disk / "smoke.log"))


def test_what_any_library_cannot_write_is_not_done_and_no_answer(disk: Path) -> None:
    fill(disk)
    report = Reporter(Console(file=io.StringIO()))
    with report.stage("abacus/poet", "weights", disk.parent / "weights.log") as log:
        ended = tried(lambda: (disk / "weights").write_bytes(b"x" * 9000), log)
    assert isinstance(ended, WorldError)
    assert ended.message == FULL


def test_pieces_that_find_no_room_are_told_and_only_whole_ones_are_there(disk: Path) -> None:
    members = [Member(path="large", content=os.urandom(2 * ROOM))]
    with pytest.raises(WorldError, match=FULL), room_for("bundle"):
        write_pieces(disk, members, piece_bytes=ROOM // 4, settings={})
    whole = [data.stat().st_size for data in disk.glob("piece.*/data")]
    assert whole
    assert set(whole) == {ROOM // 4}
    assert not list(disk.glob("piece.*/.*"))


def test_a_program_that_finds_no_room_says_so_and_not_what_its_caller_would(disk: Path) -> None:
    fill(disk)
    with pytest.raises(CommandError, match="exit code 1") as told:
        run(
            ["cp", "/usr/bin/env", disk / "env"],
            doing="copying",
            hint="see that the index answers",
        )
    assert told.value.hint.startswith("a disk is full")


def test_a_command_ends_with_4_and_other_errors_of_files_stay_bugs(
    disk: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy_project(tmp_path)
    monkeypatch.chdir(tmp_path)

    def writes(_options: Options, _report: Reporter) -> int:
        (disk / "answer").write_bytes(b"x" * 9000)
        return 0

    def reads(_options: Options, _report: Reporter) -> int:
        return len((disk / "nothing").read_bytes())

    fill(disk)
    monkeypatch.setitem(COMMANDS, "page", writes)
    assert main(["page"], Console(file=io.StringIO())) == 4
    assert capsys.readouterr().err.startswith(f"error: page: {FULL}")
    monkeypatch.setitem(COMMANDS, "page", reads)
    with pytest.raises(FileNotFoundError):
        main(["page"], Console(file=io.StringIO()))
