"""Item rows as they are kept: one canonical line each, found again only if not one byte has changed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pipeline.accuracy_result import AccuracyResult, ItemRow
from pipeline.canonical import canonical, sha256_bytes
from pipeline.errors import StageRefusedError


def lines(rows: Iterable[ItemRow]) -> bytes:
    return b"".join(canonical(row.model_dump(mode="json")) + b"\n" for row in rows)


def stored_rows(folder: Path, result: AccuracyResult) -> tuple[ItemRow, ...]:
    """The rows behind a result. Raises StageRefusedError where they are not the ones it was made of."""
    path = folder / result.items_file
    if not path.exists() or sha256_bytes(data := path.read_bytes()) != result.items_sha256:
        raise StageRefusedError(
            "the rows that this verdict was made of are not there",
            where=str(path),
            details=f"expected SHA-256 {result.items_sha256}",
            hint="run the accuracy stage again with --again",
        )
    return tuple(ItemRow.model_validate_json(line) for line in data.splitlines())
