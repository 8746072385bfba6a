"""Scratch folders are empty, gone afterwards, and gone after a kill too."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.errors import WorldError
from pipeline.world.process import is_over, me
from pipeline.world.scratch import scratch_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_scratch_folder_is_gone_afterwards(temporary: Path) -> None:
    with scratch_folder() as folder:
        (folder / "base.tar").write_bytes(b"half")
        assert list(temporary.iterdir()) == [folder]
    assert list(temporary.iterdir()) == []


def test_what_a_killed_run_left_is_removed_by_the_next(temporary: Path) -> None:
    script = """
import os, signal
from pipeline.world.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "base.tar").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={"TMPDIR": str(temporary)}, check=False
    )
    assert len(list(temporary.iterdir())) == 1
    with scratch_folder() as folder:
        assert list(temporary.iterdir()) == [folder]


def test_a_process_that_runs_and_one_of_another_host_are_not_over() -> None:
    host, pid, ticks = me().split(":")
    assert not is_over(me())
    assert not is_over(f"elsewhere:{pid}:1")
    assert is_over(f"{host}:{pid}:{int(ticks) + 1}")
    assert not is_over(f"{pid}:{ticks}"), "a label of another version"


def test_no_room_is_said(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "absent"))
    with pytest.raises(WorldError, match="cannot be written"), scratch_folder():
        pass
