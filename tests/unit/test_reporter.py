"""What a person sees of cells that run side by side: a live line each, or plain lines that begin with the cell."""

from __future__ import annotations

import io
import re
import threading
import time
from pathlib import Path

from rich.console import Console

from pipeline.board import Board
from pipeline.reporter import Reporter

CELLS = ("abacus/poet", "loom/poet", "loom/critic")


def drawn(board: Board, width: int = 60) -> list[str]:
    """The lines as they would be at this moment."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(board)
    return [line.rstrip() for line in capture.get().splitlines() if line.strip()]


def test_every_cell_at_work_has_a_line_with_stage_seconds_and_its_latest_text() -> None:
    board = Board(Console(file=io.StringIO(), force_terminal=True, width=60))
    with board.line("abacus/poet", "build") as first, board.line("loom/poet", "smoke") as second:
        first("Step 3/9 [arch] RUN pip install")
        second("a text that is longer than any terminal of this width could ever show")
        lines = drawn(board)
        assert len(lines) == 2
        assert re.search(r"abacus/poet +build +0 s +Step 3/9 \[arch\] RUN pip", lines[0])
        assert re.search(r"loom/poet +smoke +0 s +a text that is longer.*…$", lines[1])
        assert max(map(len, lines)) <= 60
    assert drawn(board) == []


def test_a_cell_has_one_line_and_lines_keep_their_places() -> None:
    board = Board(Console(file=io.StringIO()))
    with board.line("loom/poet", "build"), board.line("abacus/poet", "smoke") as turn:
        turn("waits for cpu")
        assert [line.split()[1:3] for line in drawn(board)] == [
            ["abacus/poet", "smoke"],
            ["loom/poet", "build"],
        ]
        with board.line("abacus/poet", "smoke") as stage:
            stage("ready")
            assert [line.split()[-1] for line in drawn(board)] == ["ready", "s"]
        assert drawn(board)[0].endswith("waits for cpu")


def test_lines_are_drawn_while_one_is_there_and_gone_afterwards() -> None:
    file = io.StringIO()
    board = Board(Console(file=file, force_terminal=True, width=60))
    with board.line("abacus/poet", "build"):
        until = time.monotonic() + 10
        while "abacus/poet" not in file.getvalue():
            assert time.monotonic() < until, "it is never drawn"
            time.sleep(0.01)
    assert file.getvalue().endswith("\r\x1b[2K\x1b[?25h\r"), "the line is wiped"


def test_without_a_terminal_nothing_is_drawn() -> None:
    file = io.StringIO()
    with Board(Console(file=file)).line("abacus/poet", "build") as show:
        show("Step 3/9")
    assert file.getvalue() == ""


def test_plain_lines_of_many_threads_stay_whole_and_each_log_is_its_own(tmp_path: Path) -> None:
    file = io.StringIO()
    report = Reporter(Console(file=file, width=200))

    def work(cell: str) -> None:
        with report.stage(cell, "build", tmp_path / cell / "build.log") as log:
            for number in range(50):
                log.say(f"layer {number}")
                log.line(f"detail {number}")

    threads = [threading.Thread(target=work, args=(cell,)) for cell in CELLS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    printed = file.getvalue().splitlines()
    for cell in CELLS:
        mine = [line for line in printed if line.startswith(f"{cell} build: ")]
        assert mine == [f"{cell} build: layer {number}" for number in range(50)]
        kept = (tmp_path / cell / "build.log").read_text().splitlines()
        assert kept == [line for n in range(50) for line in (f"layer {n}", f"detail {n}")]
    assert len(printed) == 50 * len(CELLS)


def test_what_a_stage_waits_for_is_said_without_a_terminal_too() -> None:
    file = io.StringIO()
    with Reporter(Console(file=file)).waiting("loom/poet", "smoke") as told:
        told("waits for cpu")
    assert file.getvalue() == "loom/poet smoke: waits for cpu\n"


def test_a_table_on_a_narrow_terminal_cuts_no_digest() -> None:
    file, digest = io.StringIO(), "sha256:" + "0123456789abcdef" * 4
    console = Console(file=file, width=60, force_terminal=True, color_system=None)
    Reporter(console).table(("repository", "digest"), [("toys/staging/loom/poet", digest)])
    rows = file.getvalue().splitlines()[1:]
    assert "".join(row.split()[-1] for row in rows) == digest
