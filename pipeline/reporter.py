"""What a person sees while stages run: a live line a cell on a terminal, plain lines elsewhere, a log file a stage.

Cells run side by side, so everything here may be called from any thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline import github
from pipeline.board import Board
from pipeline.canonical import writing
from pipeline.errors import PipelineError

PLAIN_PROGRESS_S = 15.0


class StageLog:
    """`say` is an event, `progress` passes by, `line` goes to the log alone. All three are in the log."""

    def __init__(
        self, path: Path, title: str, console: Console, show: Callable[[str], None] | None
    ) -> None:
        self.path = path
        self._title = title
        self._console = console
        self._show = show
        self._shown = time.monotonic()
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8", buffering=1)

    def say(self, text: str) -> None:
        self.line(text)
        self._shown = time.monotonic()
        self._console.print(f"{self._title}: {text}", markup=False, highlight=False, soft_wrap=True)

    def progress(self, text: str) -> None:
        self.line(text)
        if self._show:
            self._show(text)
        elif time.monotonic() - self._shown > PLAIN_PROGRESS_S:
            self._shown = time.monotonic()
            self._console.print(
                f"{self._title}: {text}", markup=False, highlight=False, soft_wrap=True
            )

    def line(self, text: str) -> None:
        with writing(self.path):
            self._file.write(text + "\n")

    def close(self) -> None:
        with suppress(OSError):  # what could not be written is told by who wrote it
            self._file.close()


class Reporter:
    def __init__(self, console: Console) -> None:
        self.console = console
        self._board = Board(console)

    @contextmanager
    def stage(self, cell: str, stage: str, path: Path) -> Iterator[StageLog]:
        title, is_live = f"{cell} {stage}", self.console.is_terminal
        with self._board.line(cell, stage) as show:
            log = StageLog(path, title, self.console, show if is_live else None)
            try:
                yield log
            finally:
                log.close()

    @contextmanager
    def waiting(self, cell: str, stage: str) -> Iterator[Callable[[str], None]]:
        """What a stage waits for before it begins: told by who waits, if it has to."""
        with self._board.line(cell, stage) as show:
            is_live = self.console.is_terminal
            yield show if is_live else lambda text: self.say(f"{cell} {stage}: {text}")

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def error(self, error: PipelineError) -> None:
        sys.stderr.write(f"error: {error}\n")
        for line in github.annotated(error) if github.is_there() else ():
            self.say(line)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table on a terminal, aligned plain columns elsewhere; nothing is cut. Also for a GitHub job's summary."""
        github.add_to_summary(github.markdown_table(columns, rows))
        if self.console.is_terminal:
            table = Table(box=None, pad_edge=False)
            for column in columns:
                table.add_column(column, overflow="fold")  # a digest goes on in the next line
            for row in rows:
                table.add_row(*(word.replace("[", r"\[") for word in row))
            self.console.print(table)
            return
        widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns) - 1)]
        padded = (
            [*map(str.ljust, row[:-1], widths), row[-1]]  # all but the last, which may be long
            for row in [columns, *rows]
        )
        self.say("\n".join("  ".join(words).rstrip() for words in padded))
