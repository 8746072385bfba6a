"""What a registry itself says of releases: one index each, and tombstones of what was withdrawn."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from pipeline.canonical import canonical
from pipeline.errors import WorldError
from pipeline.naming import release_order
from pipeline.results import Frozen

INDEX_TYPE = "application/vnd.flagos.release.index.v1+json"
TAG_PREFIX = "rel-"
NEWEST = "latest"  # the alias in every public repository that follows the newest release


class TagMove(Frozen):
    """A tag and what it names, before and after; None: nothing."""

    repository: str
    tag: str
    before: str | None
    after: str | None

    @property
    def place(self) -> tuple[str, str]:
        return self.repository, self.tag

    @property
    def sentence(self) -> str:
        return (
            f"{self.repository}:{self.tag} {self.before or 'nothing'} → {self.after or 'nothing'}"
        )


class IndexedCell(Frozen):
    cell: str
    repository: str
    digest: str
    record_sha256: str  # of the sealed record, as it is attached to the image
    waiver: str | None = None


class ReleaseIndex(Frozen):
    """Every cell of a release, and every tag it moves. Stored, it is what makes the release public."""

    index_schema: Literal[1] = 1
    release: str
    cells: tuple[IndexedCell, ...]
    moves: tuple[TagMove, ...]  # in the order they are made: version tags, then aliases
    left_out: tuple[str, ...] = ()  # cells that were selected and not promoted, and why


class Tombstone(Frozen):
    """Says of a digest that nobody should use it any more, and why. It refers to the image, which stays."""

    tombstone_schema: Literal[1] = 1
    event: Literal["yanked", "rolled_back"]
    release: str
    cell: str | None  # None: the release as a whole, said of its index
    digest: str
    by: str
    reason: str
    time: str  # UTC, ISO 8601
    replaced_by: str | None  # the release that the alias names now

    @property
    def date(self) -> str:
        return self.time[:10]

    @property
    def sentence(self) -> str:
        what = {"yanked": "was yanked", "rolled_back": "was rolled back"}[self.event]
        instead = f"; use release {self.replaced_by}" if self.replaced_by else ""
        return f"release {self.release} {what} on {self.date} by {self.by}: {self.reason}{instead}"


class Announcement(Frozen):
    """What the tag WITHDRAWN names: the newest withdrawal, as it begins and when it is done."""

    announcement_schema: Literal[1] = 1
    told: datetime  # so that no two are the same
    is_done: bool
    tombstones: tuple[Tombstone, ...]


def extended(
    old: ReleaseIndex | None,
    release: str,
    cells: Iterable[IndexedCell],
    moves: Iterable[TagMove],
    left_out: tuple[str, ...],
) -> ReleaseIndex:
    """An index with these cells and moves added to what it says already; what it says stays."""
    all_cells = {cell.cell: cell for cell in (*cells, *(old.cells if old else ()))}
    all_moves = {move.place: move for move in (*moves, *(old.moves if old else ()))}
    return ReleaseIndex(
        release=release,
        cells=tuple(all_cells[cell] for cell in sorted(all_cells)),
        moves=tuple(sorted(all_moves.values(), key=lambda move: (move.tag == NEWEST, move.place))),
        left_out=left_out,
    )


def index_tag(release: str) -> str:
    return f"{TAG_PREFIX}{release}"


def indexed_releases(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Releases by the tags of their indexes, newest first."""
    found = [tag.removeprefix(TAG_PREFIX) for tag in tags if tag.startswith(TAG_PREFIX)]
    return tuple(sorted(found, key=release_order, reverse=True))


def document(content: ReleaseIndex | Tombstone | Announcement) -> bytes:
    return canonical(content.model_dump(mode="json"))


def parse_index(content: bytes, where: str) -> ReleaseIndex:
    try:
        return ReleaseIndex.model_validate_json(content)
    except ValueError as error:
        raise _unreadable("release index", where, error) from error


def parse_tombstone(content: bytes, where: str) -> Tombstone:
    try:
        return Tombstone.model_validate_json(content)
    except ValueError as error:
        raise _unreadable("tombstone", where, error) from error


def parse_announcement(content: bytes, where: str) -> Announcement:
    try:
        return Announcement.model_validate_json(content)
    except ValueError as error:
        raise _unreadable("announcement of a withdrawal", where, error) from error


def _unreadable(what: str, where: str, error: ValueError) -> WorldError:
    return WorldError(
        f"this {what} cannot be read",
        where=where,
        details=str(error),
        hint="it was written by another version of the pipeline; use that one",
    )
