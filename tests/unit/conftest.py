"""What no unit test looks at is done once, or not at all: templates are compiled once, and nothing waits for a disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.templates import Templates
from tests.projects import COMPILED


@pytest.fixture(scope="session", autouse=True)
def _compiled_once() -> Iterator[None]:
    """Also by commands, which make their own project; jinja2 looks whether the source is another one."""
    made = Templates.__init__

    def with_what_was_compiled(self: Templates, folder: Path) -> None:
        made(self, folder)
        self._environment.bytecode_cache = COMPILED

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Templates, "__init__", with_what_was_compiled)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk() -> Iterator[None]:
    """No unit test cuts the power, so none sees what a flush does. Those of when there is one set `os.fsync`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield
