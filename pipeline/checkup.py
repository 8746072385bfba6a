"""What `doctor` says of one thing that a release needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import PipelineError

State = Literal["ok", "wrong", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`to_do`: what to change, or how to get to know; empty where all is well."""

    state: State
    seen: str
    to_do: str = ""


@dataclass(frozen=True)
class Check:
    name: str
    find: Callable[[], Finding]

    def found(self) -> Finding:
        """An error that a check did not expect is what is wrong."""
        try:
            return self.find()
        except PipelineError as error:
            head = f"{error.where}: {error.message}" if error.where else error.message
            seen = "; ".join([head, *error.details.splitlines()[:2]])
            return Finding(state="wrong", seen=seen, to_do=error.hint)


def ok(seen: str) -> Finding:
    return Finding(state="ok", seen=seen)


def wrong(seen: str, to_do: str) -> Finding:
    return Finding(state="wrong", seen=seen, to_do=to_do)


def unknown(seen: str, to_do: str) -> Finding:
    return Finding(state="unknown", seen=seen, to_do=to_do)
