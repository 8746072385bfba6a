"""The lines at the bottom of a terminal: one for each cell that is at work, with its stage and seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

PER_SECOND = 8


@dataclass
class _Line:
    cell: str
    stage: str
    since: float
    text: str = ""


class Board:
    """Drawn anew several times a second while it has a line; nothing where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._changing = threading.Lock()
        self._lines: list[_Line] = []
        self._live: Live | None = None
        self._frames = Spinner("dots").frames

    @contextmanager
    def line(self, cell: str, stage: str) -> Iterator[Callable[[str], None]]:
        """A line for the time of a stage; what is yielded sets its text."""
        line = _Line(cell=cell, stage=stage, since=time.monotonic())

        def show(text: str) -> None:
            line.text = text

        self._add(line)
        try:
            yield show
        finally:
            self._remove(line)

    def _add(self, line: _Line) -> None:
        with self._changing:
            self._lines.append(line)
            if self._live is None and self._console.is_terminal:
                self._live = Live(
                    self, console=self._console, refresh_per_second=PER_SECOND, transient=True
                )
                self._live.start()

    def _remove(self, line: _Line) -> None:
        with self._changing:
            self._lines.remove(line)
            if self._live and not self._lines:
                self._live.stop()
                self._live = None

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich's own thread. The latest text of a line goes as far as the terminal is wide."""
        newest = {line.cell: line for line in tuple(self._lines)}  # a stage inside of its turn
        lines, now = [newest[cell] for cell in sorted(newest)], time.monotonic()
        cell, stage = (max((len(w) for w in words), default=0) for words in _words(lines))
        frame = self._frames[int(now * PER_SECOND) % len(self._frames)]
        for line in lines:
            seconds = f"{now - line.since:.0f} s"
            told = f"{frame} {line.cell:{cell}}  {line.stage:{stage}}  {seconds:>6}  {line.text}"
            text = Text(told)
            text.truncate(options.max_width, overflow="ellipsis")
            yield text


def _words(lines: Sequence[_Line]) -> tuple[list[str], list[str]]:
    return [line.cell for line in lines], [line.stage for line in lines]
