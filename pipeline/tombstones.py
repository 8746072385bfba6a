"""The tombstone of a cell beside its record, which itself stays as it was promoted. Cards are made from both."""

from __future__ import annotations

from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.record import RecordStore
from pipeline.release_index import Tombstone, document, parse_tombstone

FILE = "tombstone.json"


def tombstone_beside(record_folder: Path) -> Tombstone | None:
    """Why nobody should use this release of the cell any more; None: nobody withdrew it."""
    path = record_folder / FILE
    return parse_tombstone(path.read_bytes(), str(path)) if path.exists() else None


def keep_tombstone(store: RecordStore, stone: Tombstone) -> Path | None:
    """Write it beside the record that it speaks of; None where this store has no such record."""
    chip, _, model = (stone.cell or "").partition("/")
    folder = store.folder(stone.release, chip, model)
    if not (folder / "record.json").exists():
        return None
    write_whole(folder / FILE, document(stone) + b"\n")
    return folder / FILE
