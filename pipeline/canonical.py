"""Bytes that are compared and kept: canonical JSON, hashes, files that exist only if whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rfc8785

from pipeline.errors import WorldError

_TEMPORARY_NAMES = threading.Lock()  # which two threads that write one file would share


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON. Raises ValueError for NaN and infinities: store counts instead."""
    return rfc8785.dumps(value)


def fingerprint(value: Any) -> str:
    """A hash that is only compared with others of ours: sorted JSON by the encoder in C, for a plan makes hundreds."""
    return sha256_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write under a temporary name, flush to disk, rename: the file exists only if whole.

    Raises WorldError when the disk is full or the folder cannot be written.
    """
    with writing(path), _TEMPORARY_NAMES:
        _write_whole(path, data)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Says which file could not be written, and what to do."""
    try:
        yield
    except OSError as error:
        raise not_written(error, path) from error


@contextmanager
def room_for(doing: str) -> Iterator[None]:
    """A full disk is no bug, whoever meets it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise not_written(error, doing) from error


def not_written(error: OSError, where: Path | str) -> WorldError:
    return WorldError(
        f"cannot be written: {error.strerror}",
        where=str(error.filename or where),
        hint="look at the free space and the owner of the folder (df -h, ls -ld), then run the same command again",
    )


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that the next run overwrites what a kill left.
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
