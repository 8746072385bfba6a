"""What no unit test looks at is done once, or not at all.

Templates are compiled once and a matrix is read once in each worker, and nothing waits for a disk.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import project
from pipeline.matrix import Matrix
from pipeline.matrix_file import read_matrix
from pipeline.templates import Templates
from tests.projects import COMPILED, ROOT

_READ: dict[bytes, Matrix] = {}


def pytest_collection_finish() -> None:
    gc.freeze()  # two thousand tests and their modules stay to the end; nothing looks for garbage in them


def _read_once(path: Path) -> Matrix:
    """One of the same text is the same; faults are looked for each time."""
    text = path.read_bytes() if path.exists() else b""
    if text not in _READ:
        _READ[text] = read_matrix(path)
    return _READ[text]


def _compiled_once(self: Templates, folder: Path) -> None:
    """jinja2 looks whether a template is still what was compiled."""
    _MADE(self, folder)
    self._environment.bytecode_cache = COMPILED


_MADE = Templates.__init__


@pytest.fixture(scope="session", autouse=True)
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project, "read_matrix", _read_once)
        patch.setattr(Templates, "__init__", _compiled_once)
        # No unit test cuts the power, so none sees what a flush does; those of when there is one set this too.
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _templates_are_only_read() -> Iterator[None]:
    before = _templates()
    yield
    assert _templates() == before, "a test wrote to templates/: give it `own_templates`"


def _templates() -> dict[Path, tuple[int, int]]:
    found = {path: path.stat() for path in (ROOT / "templates").rglob("*")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}
