"""Everything that can go wrong in a way we expect.

    PipelineError            exit code 1: a cell failed
    ├── UsageError           2: the matrix or the command line is wrong
    ├── NothingSelectedError 3: no cell matches the selection
    ├── WorldError           4: engine, registry, hub, device or a source of files is unusable
    │   ├── NotAllowedError  it answered that this account may not
    │   └── NoAnswerError    it could not be asked: down, cut off, overloaded, blocked by a policy
    ├── StageRefusedError    1: a stage looked at its input and said no
    ├── InconclusiveError    5: the accuracy gate could not decide
    ├── StoppedError         1: somebody ended the run before this was done
    └── CommandError         4: a program we started failed

Only `cli.py` prints them. Anything that is not a PipelineError is a bug and keeps its traceback.
"""

from __future__ import annotations


class PipelineError(Exception):
    """What was being done, on what, what came instead, and what to change."""

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", details: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.details = details
        self.hint = hint

    def __str__(self) -> str:
        head = f"{self.where}: {self.message}" if self.where else self.message
        parts = [head]
        if self.details:
            parts.append(self.details)
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class UsageError(PipelineError):
    exit_code = 2


class NothingSelectedError(PipelineError):
    exit_code = 3


class WorldError(PipelineError):
    exit_code = 4


class NotAllowedError(WorldError):
    """An answer, and asking again changes nothing."""


class NoAnswerError(WorldError):
    """Nothing is known: neither that the thing is there nor that it is absent."""


class StageRefusedError(PipelineError):
    exit_code = 1


class InconclusiveError(PipelineError):
    exit_code = 5


class StoppedError(PipelineError):
    exit_code = 1


class CommandError(WorldError):
    """A program that we started failed; carries its command, exit code, seconds, log and last lines."""
