"""The tombstone of a cell beside its record, which itself stays as it was promoted. Cards are made from both.

It is a copy of what the registry keeps at the image, so that a card is written and checked without asking anybody.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.release_index import Tombstone, document, parse_tombstone

FILE = "tombstone.json"


def tombstone_beside(record_folder: Path) -> Tombstone | None:
    """Why nobody should use this release of the cell any more; None: nobody withdrew it."""
    path = record_folder / FILE
    return parse_tombstone(path.read_bytes(), str(path)) if path.exists() else None


def keep_tombstone(record_folder: Path, stone: Tombstone) -> Path | None:
    """Write it beside a record; None where there is no record, or the same tombstone already."""
    if not (record_folder / "record.json").exists() or tombstone_beside(record_folder) == stone:
        return None
    write_whole(record_folder / FILE, document(stone) + b"\n")
    return record_folder / FILE
