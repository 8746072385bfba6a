"""The command line. The only place that prints failures and picks exit codes."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from rich.console import Console

from pipeline import noop
from pipeline.arguments import options_of
from pipeline.errors import PipelineError
from pipeline.reporter import Reporter
from pipeline.workers import INTERRUPTED


def main(words: Sequence[str], console: Console | None = None) -> int:
    """Run one command; its exit code. Anything but a PipelineError is a bug and keeps its traceback."""
    options = options_of(words)
    reporter = Reporter(console or Console())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if noop.may_be_known(options) and (done := noop.known(options)):
            noop.tell(done, reporter)
            return 0
        from pipeline.canonical import room_for
        from pipeline.commands import COMMANDS  # with the matrix, its libraries and every record

        gc.freeze()
        gc.enable()
        with room_for(options.command):
            return COMMANDS[options.command](options, reporter)
    except PipelineError as error:
        reporter.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; run the same command again to go on\n")
        return INTERRUPTED


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
