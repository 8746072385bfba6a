"""The page of the whole matrix: every cell with state, verdict, date and card. Pure; from matrix.yaml and records/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.cell import Cell
from pipeline.cells import cells, exclusions
from pipeline.doubts import doubts
from pipeline.imported_record import RELEASE
from pipeline.matrix import Matrix, Target
from pipeline.names import Names, names
from pipeline.naming import release_order
from pipeline.record import STAGES, Record, read_record
from pipeline.release_index import Tombstone
from pipeline.templates import Templates
from pipeline.tombstones import tombstone_beside

PAGES = {"docs/matrix.md": "page.md.j2", "docs/matrix.html": "page.html.j2"}
BANNER = "Rendered by `nox -s page` from matrix.yaml, records/ and templates/{}; change those, not this file."
RECORDS = "records"  # of real releases; the page lies beside their folder
State = Literal["released", "withdrawn", "passed", "failed", "inconclusive", "untested", "excluded"]
MEANINGS: Mapping[State, str] = {
    "released": "measured, promoted and published",
    "withdrawn": "released, and taken back",
    "passed": "measured, and not promoted",
    "failed": "a stage refused it",
    "inconclusive": "the accuracy gate could not decide",
    "untested": "rendered and planned, never run",
    "excluded": "not offered, and why",
}


@dataclass(frozen=True, kw_only=True)
class Square:
    """One cell of the page."""

    chip: str
    model: str
    state: State
    says: str = ""  # the verdict, or why there is none
    release: str = ""
    date: str = ""
    card: str = ""  # where it lies, as seen from docs/
    record: str = ""
    published: str = ""  # FlagRelease's repository of before, which nobody here reproduced
    imported: str = ""  # the card that was written from it
    cell: Cell | None = None  # None: excluded
    names: Names | None = None
    doubts: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.chip}/{self.model}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A committed record of a cell, and what lies beside it."""

    record: Record
    has_card: bool
    withdrawn: Tombstone | None = None


def committed_records(root: Path) -> dict[str, Found]:
    """By cell id the newest that nobody withdrew, else the newest; a release with a higher number is newer."""
    found: dict[str, Found] = {}
    paths = (root / RECORDS).glob("*/*/*/record.json")
    for path in sorted(paths, key=lambda path: release_order(path.parts[-4])):
        record = read_record(path)
        stone, before = tombstone_beside(path.parent), found.get(record.cell)
        if stone is None or before is None or before.withdrawn:
            has_card = path.with_name("card.en.md").exists()
            found[record.cell] = Found(record=record, has_card=has_card, withdrawn=stone)
    return found


def imported_cards(root: Path) -> dict[str, str]:
    """By cell id: where its imported card lies, as seen from docs/."""
    paths = (root / RECORDS / RELEASE).glob("*/*/card.en.md")
    return {
        "/".join(path.parts[-3:-1]): f"../{path.relative_to(root).as_posix()}" for path in paths
    }


def page_files(
    matrix: Matrix, records: Mapping[str, Found], imported: Mapping[str, str], templates: Templates
) -> dict[str, bytes]:
    """The page as Markdown and as one HTML file that needs nothing beside it."""
    grid = squares(matrix, records, imported)
    shown = {
        "matrix": matrix,
        "squares": grid,
        "counts": Counter(square.state for square in grid.values()),
        "meanings": MEANINGS,
    }
    return {
        path: templates.render(name, banner=BANNER.format(name), **shown)
        for path, name in PAGES.items()
    }


def squares(
    matrix: Matrix, records: Mapping[str, Found], imported: Mapping[str, str]
) -> dict[str, Square]:
    """Every cell of the product, by id, in the order of the file."""
    there = {cell.id: cell for cell in cells(matrix)}
    why = exclusions(matrix)
    found = (
        _square(there[cell], matrix, records.get(cell), imported.get(cell, ""))
        if (cell := f"{chip}/{model}") in there
        else Square(
            chip=chip,
            model=model,
            state="excluded",
            says=why[cell],
            published=matrix.models[model].published.get(chip, ""),
        )
        for chip in matrix.chips
        for model in matrix.models
    )
    return {square.id: square for square in found}


def _square(cell: Cell, matrix: Matrix, found: Found | None, imported: str) -> Square:
    known = Square(
        chip=cell.chip_id,
        model=cell.model_id,
        state="untested",
        cell=cell,
        names=names(cell, _public(matrix)),
        doubts=doubts(cell),
        published=cell.model.published.get(cell.chip_id, ""),
        imported=imported,
    )
    return known if found is None else _measured(known, found)


def _public(matrix: Matrix) -> Target:
    """Where a reader finds releases: the first target that is not this machine."""
    outward = [target for name, target in matrix.targets.items() if name != "local"]
    return outward[0] if outward else matrix.targets["local"]


def _measured(square: Square, found: Found) -> Square:
    record = found.record
    ran = [stage for name in STAGES if (stage := record.stages.get(name))]
    state, says = _ended(record)
    if found.withdrawn:
        state, says = "withdrawn", found.withdrawn.sentence
    folder = f"../{RECORDS}/{record.release}/{record.cell}"
    return replace(
        square,
        state=state,
        says=says,
        release=record.release,
        date=ran[-1].started[:10],
        card=f"{folder}/card.en.md" if found.has_card else "",
        record=f"{folder}/record.json",
    )


def _ended(record: Record) -> tuple[State, str]:
    """By the first stage that did not pass, else by how far it came."""
    for name in STAGES:
        stage = record.stages.get(name)
        if name == "accuracy" and record.waiver:
            continue
        if stage is not None and stage.status not in ("passed", "not_applicable"):
            state: State = "inconclusive" if stage.status == "inconclusive" else "failed"
            return state, f"{name} refused it: {(stage.error or stage.status).splitlines()[0]}"
    accuracy = record.stages.accuracy
    says = accuracy.result.verdict.sentence if accuracy and accuracy.result else ""
    if record.waiver:
        says = f"{says or 'accuracy was not measured'}; {record.waiver.sentence}"
    if not says:
        return "untested", "the release stopped before accuracy was measured"
    return ("released" if record.stages.promote else "passed"), says
