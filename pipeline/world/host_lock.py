"""One at a time on this host, whoever and from whichever checkout; a killed holder holds nothing."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.canonical import writing


@contextmanager
def host_lock(name: str, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Wait for the lock of this name and hold it; `waiting` is told once who has it."""
    with _file_lock(Path(tempfile.gettempdir()) / f"flagrelease-{_file_name(name)}", waiting):
        yield


@contextmanager
def folder_lock(folder: Path, name: str, waiting: Callable[[str], None]) -> Iterator[None]:
    """The same for a folder of one checkout, whatever temporary folder each of its users has."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _file_lock(folder / _file_name(name), waiting):
        yield


def _file_name(name: str) -> str:
    return f"{re.sub(r'[^a-z0-9.]+', '-', name)}.lock"


@contextmanager
def _file_lock(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    with writing(path):
        # Never created where it exists: in a sticky folder the kernel would refuse that to other users.
        with suppress(FileExistsError):
            created = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
            os.fchmod(created, 0o666)
            os.close(created)
        file = path.open("r+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(f"waiting for process {file.read().strip() or '?'}, which has {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        # Over what is there, always as long: ext4 writes a file to disk that was emptied and filled.
        file.seek(0)
        file.write(f"{os.getpid():10}\n")
        file.flush()
        yield
