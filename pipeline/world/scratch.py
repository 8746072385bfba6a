"""Folders for the time of one step. What a killed run left is removed by the next one."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.canonical import writing
from pipeline.world.process import is_over, me

PREFIX = "flagrelease-"
BETWEEN = "+"  # no colon: mmdebstrap's apt fails below a folder with one in its name


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder that is gone afterwards. Raises WorldError when there is no room for one."""
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{PREFIX}*{BETWEEN}*{BETWEEN}*{BETWEEN}*"):
        owner, _, _ = left.name.removeprefix(PREFIX).rpartition(BETWEEN)
        if is_over(owner.replace(BETWEEN, ":")):
            shutil.rmtree(left, ignore_errors=True)
    owner = me().replace(":", BETWEEN)
    folder = root / f"{PREFIX}{owner}{BETWEEN}{threading.get_native_id()}"
    with writing(folder):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
