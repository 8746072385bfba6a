"""A folder of benchmark data on this machine: hashed by us, and read only as a copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipeline.canonical import canonical, sha256_bytes, sha256_file
from pipeline.errors import WorldError
from pipeline.results import FileHash


def folder_hash(folder: Path, name: str) -> FileHash:
    """One hash over the names and hashes of all files. Raises WorldError when there is nothing to hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    if not files:
        raise WorldError(
            "the data folder is missing or empty",
            where=str(folder),
            hint="download the data set named in matrix.yaml into it; docs/evaluators.md says how",
        )
    listed = [[path.relative_to(folder).as_posix(), sha256_file(path)] for path in files]
    size = sum(path.stat().st_size for path in files)
    return FileHash(path=name, sha256=sha256_bytes(canonical(listed)), size_bytes=size)


def copy_folder(folder: Path, copy: Path) -> None:
    """For a harness that deletes files of the folder it reads. Hard links where they can be: only names are copied."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
