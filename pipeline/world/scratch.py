"""Folders for the time of one step. What a killed run left is removed by the next one."""

from __future__ import annotations

import shutil
import tempfile
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
    for left in root.glob(f"{PREFIX}*{BETWEEN}*{BETWEEN}*"):
        if is_over(left.name.removeprefix(PREFIX).replace(BETWEEN, ":")):
            shutil.rmtree(left, ignore_errors=True)
    folder = root / f"{PREFIX}{me().replace(':', BETWEEN)}"
    with writing(folder):
        folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
