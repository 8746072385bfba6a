"""What was about to be done to public tags, on disk before it is done.

A journal is a file of JSON lines, `<time>-<kind>-<release>.open.jsonl`; finished or undone, it is renamed to `….jsonl`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline.canonical import writing
from pipeline.errors import WorldError
from pipeline.release_index import TagMove, Tombstone
from pipeline.results import Frozen

OPEN = ".open.jsonl"


class Commit(Frozen):
    """The tag that makes it all true, and what it names then."""

    repository: str
    tag: str
    digest: str


class Burial(Frozen):
    repository: str
    tombstone: Tombstone


class Operation(Frozen):
    """All that is to be done. Before its commit it can be dropped, after that it has to be finished."""

    kind: Literal["promote", "rollback", "yank"]
    release: str
    registry: str
    index_repository: str = (
        ""  # whose lock is held while this is done; journals before 2026.11.25 do not say
    )
    commit: Commit | None  # None: it counts from the moment it is in the journal
    moves: tuple[TagMove, ...]
    burials: tuple[Burial, ...] = ()

    @property
    def index(self) -> str:
        """The index's repository; empty: neither a commit nor the tombstone of a release tells which."""
        whole = [one.repository for one in self.burials if one.tombstone.cell is None]
        committed = [self.commit.repository] if self.commit else []
        return next(filter(None, (self.index_repository, *committed, *whole)), "")


class Restore(Frozen):
    """A manifest that is deleted and stored again, because the registry cannot delete a tag alone."""

    repository: str
    digest: str
    media_type: str
    body: str
    tags: tuple[str, ...]  # that named it and still have to


class Journal:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()

    @classmethod
    def begin(cls, folder: Path, operation: Operation) -> Journal:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        path = folder / f"{stamp}-{operation.kind}-{operation.release}{OPEN}"
        begun = cls(path.with_suffix(".begun"))
        with writing(path):
            folder.mkdir(parents=True, exist_ok=True)
        begun.write("begin", operation=operation.model_dump(mode="json"))
        with writing(path):
            begun.path.rename(
                path
            )  # another index's promotion reads this folder: open ones are whole
        _flush_folder(folder)
        return cls(path)

    def write(self, event: str, **more: Any) -> None:
        """Append one event; it is on disk when this returns. Half a line of a write that failed is cut off first."""
        line = {"time": datetime.now(UTC).isoformat(), "event": event, **more}
        with self._writing, writing(self.path), self.path.open("a+b") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def end(self, event: Literal["done", "undone"], **more: Any) -> None:
        self.write(event, **more)
        with writing(self.path):
            self.path.rename(self.path.with_name(self.path.name.removesuffix(OPEN) + ".jsonl"))
        _flush_folder(self.path.parent)

    def events(self) -> Iterator[dict[str, Any]]:
        """Every event; a last line that a kill cut off is none."""
        *whole, _ = self.path.read_bytes().split(b"\n")
        for line in whole:
            try:
                yield json.loads(line)
            except ValueError as error:
                raise self._unreadable(error) from error

    def operation(self) -> Operation | None:
        """None: it was killed before it had written what it was about to do."""
        begun = next(self.events(), None)
        return None if begun is None else self._read(begun)

    def unfinished_restores(self) -> tuple[Restore, ...]:
        found: dict[tuple[str, str], Restore] = {}
        for event in self.events():
            if event["event"] in ("restore", "restored"):
                restore = Restore.model_validate(event["manifest"])
                found.pop((restore.repository, restore.digest), None)
                if event["event"] == "restore":
                    found[restore.repository, restore.digest] = restore
        return tuple(found.values())

    def _read(self, begun: dict[str, Any]) -> Operation:
        try:
            return Operation.model_validate(begun["operation"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> WorldError:
        closed = self.path.name.replace(OPEN, ".jsonl")
        return WorldError(
            "this journal cannot be read",
            where=str(self.path),
            details=str(error),
            hint="finish it with the version of the pipeline that began it; or rename it to"
            f" {closed} and give the command in its name again: what is missing is then done by the release index in"
            " the registry. Where it has a line `restore` without `restored`, first store that manifest under its"
            " digest and its tags",
        )


def open_journals(folder: Path) -> tuple[Journal, ...]:
    """Oldest first."""
    return tuple(Journal(path) for path in sorted(folder.glob(f"*{OPEN}")))


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
