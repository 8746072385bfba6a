"""Cards written anew from their records: for who corrects a template. Runs no stage.

A card lies beside its record, in out/ and in records/. In each of the two the newest release of a cell that can have a
card and that nobody withdrew counts, else the newest that was withdrawn; an imported record counts where none was
measured. The records stay as they are.
"""

from __future__ import annotations

import difflib
import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.cards.facts import NEEDED
from pipeline.cell import Cell
from pipeline.errors import PipelineError, StageRefusedError
from pipeline.imported_record import FILE, RELEASE, ImportedRecord, read_imported
from pipeline.naming import release_order
from pipeline.project import Project
from pipeline.record import Record, RecordStore
from pipeline.stages.card import card, imported_card
from pipeline.tombstones import tombstone_beside


@dataclass(frozen=True, kw_only=True)
class Card:
    """The files of one card as they are now, and the folder where they lie as they were."""

    record: Record | ImportedRecord
    folder: Path
    files: Mapping[str, bytes]

    @cached_property
    def changed(self) -> tuple[str, ...]:
        return tuple(name for name, data in self.files.items() if self._found(name) != data)

    def write(self) -> None:
        for name in self.changed:
            write_whole(self.folder / name, self.files[name])

    def difference(self, name: str) -> tuple[str, ...]:
        """Lines that go and that come, without their places."""
        found = self._found(name)
        if found is None:
            return ("(it is new)",)
        if not name.endswith(".md"):
            return ("(another picture)",)
        before, now = (data.decode().splitlines() for data in (found, self.files[name]))
        lines = list(difflib.unified_diff(before, now, n=0, lineterm=""))[2:]
        return tuple(line for line in lines if not line.startswith("@@"))

    def _found(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.exists() else None


def cards_of(project: Project, cells: Sequence[Cell], release: str | None) -> tuple[Card, ...]:
    """The cards of these cells, rendered and checked. Raises StageRefusedError with every one that cannot be made."""
    cards, refused = list[Card](), list[str]()
    with _no_search_for_garbage():
        for cell in cells:
            for record, folder in newest_records(project, cell, release):
                try:
                    files = _files(record, folder, project)
                    cards.append(Card(record=record, folder=folder, files=files))
                except StageRefusedError as error:
                    refused.append(str(error))
    if refused:
        raise StageRefusedError(
            f"{len(refused)} of {len(cards) + len(refused)} cards cannot be written, so none is",
            details="\n".join(refused),
        )
    if not cards:
        of = f" in release {release}" if release else ""
        raise StageRefusedError(
            f"no record of {', '.join(cell.id for cell in cells)}{of} can have a card",
            details="\n".join(line for cell in cells for line in _why_none(project, cell)),
            hint="nox -s release measures a cell, and nox -s card with --release fetches the record of a public one",
        )
    return tuple(cards)


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Cards leave few cycles and make many objects: the search takes a sixth of the time of 120 cards."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def differences(cards: Sequence[Card], root: Path) -> Iterator[str]:
    """Every difference once, with the files that have it: a corrected template changes many cards alike."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in cards:
        for name in each.changed:
            path = (each.folder / name).relative_to(root).as_posix()
            alike.setdefault(each.difference(name), []).append(path)
    for lines, (first, *others) in alike.items():
        yield "\n".join([first, *(f"  and {path}" for path in others), *lines, ""])


def refuse_stale(cards: Sequence[Card], root: Path) -> None:
    found = list(differences(cards, root))
    if found:
        raise PipelineError(
            "cards differ from what their records and templates give",
            details="\n".join(found).rstrip(),
            hint="nox -s cards writes them anew",
        )


def _files(record: Record | ImportedRecord, folder: Path, project: Project) -> dict[str, bytes]:
    if isinstance(record, ImportedRecord):
        return imported_card(record, project.templates)
    return card(record, project.templates, tombstone_beside(folder), admits_changes=True)


def newest_records(
    project: Project, cell: Cell, release: str | None
) -> Iterator[tuple[Record | ImportedRecord, Path]]:
    """Those that give the cards of a cell, and where they lie."""
    measured = False
    for store in (project.store, project.records):
        names = _newest_first(store, cell) if release is None else (release,)
        found = filter(None, (_that_can_have_a_card(store, cell, name) for name in names))
        if one := _first_valid(found):
            yield one
            measured = True
    folder = project.records.folder(RELEASE, cell.chip_id, cell.model_id)
    if not measured and release in (None, RELEASE) and (folder / FILE).exists():
        yield read_imported(folder / FILE), folder


def _first_valid(found: Iterable[tuple[Record, Path]]) -> tuple[Record, Path] | None:
    """The first that nobody withdrew, else the first."""
    withdrawn = None
    for one in found:
        if tombstone_beside(one[1]) is None:
            return one
        withdrawn = withdrawn or one
    return withdrawn


def _that_can_have_a_card(
    store: RecordStore, cell: Cell, release: str
) -> tuple[Record, Path] | None:
    record = store.read(release, cell.chip_id, cell.model_id)
    if record is None or any(record.not_passed(NEEDED)):
        return None
    return record, store.folder(release, cell.chip_id, cell.model_id)


def _why_none(project: Project, cell: Cell) -> Iterator[str]:
    for store in (project.store, project.records):
        for name in _newest_first(store, cell):
            record = store.read(name, cell.chip_id, cell.model_id)
            if record is not None:
                missing = ", ".join(record.not_passed(NEEDED))
                yield f"{cell.id} {name}: {missing or 'can have one'}"


def _newest_first(store: RecordStore, cell: Cell) -> list[str]:
    return sorted(store.releases(cell.chip_id, cell.model_id), key=release_order, reverse=True)
