"""rollback and yank: take a release, or cells of it, back. Digests stay, so that what names them can still be pulled.

Both leave a tombstone at every image, which says who withdrew it, when and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import StageRefusedError
from pipeline.release_index import NEWEST, IndexedCell, ReleaseIndex, TagMove, Tombstone
from pipeline.world.indexes import stored, tombstones
from pipeline.world.journal import Burial, Journal, Operation
from pipeline.world.oci import WITHDRAWN, qualified
from pipeline.world.shelf import Shelf
from pipeline.world.tag_moves import carry_out

Say = Callable[[str], None]
Event = Literal["yanked", "rolled_back"]


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    release: str
    by: str
    reason: str
    time: str  # UTC, ISO 8601


def rollback(asked: Withdrawal, shelf: Shelf, *, say: Say) -> tuple[Tombstone, ...]:
    """All of a release: its tag moves, backwards; an alias to the newest that stands. One that moved on is left alone.

    Its name cannot be promoted again. Returns the tombstones of its cells; a second time it does what is missing.
    """
    with shelf.alone(say):
        index = _present(asked.release, shelf)
        for stone in shelf.withdrawn(index)[:1]:
            say(stone.sentence)
        whole = _tombstone("rolled_back", asked, None, stored(index).digest, None)
        burials = [
            Burial(repository=shelf.index_repository, tombstone=whole),
            *(_stone("rolled_back", asked, cell, shelf) for cell in index.cells),
        ]
        said = [(one, _said(one, shelf)) for one in burials]
        missing = [one for one, before in said if before is None]
        _carry_out(
            "rollback", asked.release, shelf, tuple(_backwards(index, shelf, say)), missing, say
        )
        shelf.refuse_changed(asked.release, index)
    stones = [before or one.tombstone for one, before in said]
    return tuple(stone for stone in stones if stone.cell)


def yank(
    asked: Withdrawal, cells: Sequence[str], shelf: Shelf, *, say: Say
) -> tuple[Tombstone, ...]:
    """Cells of a release: their version tags stay, the alias goes to the newest release that nobody withdrew.

    Returns their tombstones; a second time it does what is missing.
    """
    with shelf.alone(say):
        index = _present(asked.release, shelf)
        known = {cell.cell: cell for cell in index.cells}
        if missing := sorted(set(cells) - known.keys()):
            raise StageRefusedError(
                f"yanking of release {asked.release}: it does not have {', '.join(missing)}",
                where=shelf.place(asked.release),
                hint=f"it has {', '.join(known)}",
            )
        named = [known[name] for name in sorted(cells)]
        before = {cell.cell: shelf.yanks(cell.repository, cell.digest) for cell in named}
        wanted = [cell for cell in named if not before[cell.cell]]
        for cell in named:
            if cell not in wanted:
                say(f"{cell.cell} of release {asked.release} was yanked before")
        burials = [_stone("yanked", asked, cell, shelf) for cell in wanted]
        moves = tuple(
            _alias(cell, shelf.newest_digest(cell.repository, but=cell.digest))
            for cell in named
            if shelf.registry.head(cell.repository, NEWEST) == cell.digest
        )
        _carry_out("yank", asked.release, shelf, moves, burials, say)
    earlier = [stones[-1] for stones in before.values() if stones]
    return (*earlier, *(one.tombstone for one in burials))


def _present(release: str, shelf: Shelf) -> ReleaseIndex:
    index = shelf.index(release)
    if index is None:
        known = shelf.releases()[:5]
        raise StageRefusedError(
            f"release {release} has no index, so nothing of it is public",
            where=shelf.place(release),
            hint=f"the newest releases are {', '.join(known)}"
            if known
            else "nothing was promoted yet",
        )
    return index


def _backwards(index: ReleaseIndex, shelf: Shelf, say: Say) -> Iterator[TagMove]:
    for move in reversed(index.moves):
        now = shelf.registry.head(*move.place)
        if now == move.after:
            newest = move.tag == NEWEST and shelf.newest_digest(move.repository, but=index.release)
            after = newest or move.before
            yield TagMove(repository=move.repository, tag=move.tag, before=now, after=after)
        elif now != move.before:
            say(f"{qualified(*move.place)} names {now or 'nothing'} by now; left alone")


def _stone(event: Event, asked: Withdrawal, cell: IndexedCell, shelf: Shelf) -> Burial:
    best = shelf.newest(cell.repository, but=cell.digest if event == "yanked" else asked.release)
    stone = _tombstone(event, asked, cell.cell, cell.digest, best[0] if best else None)
    return Burial(repository=cell.repository, tombstone=stone)


def _said(burial: Burial, shelf: Shelf) -> Tombstone | None:
    """What this release of the image has as such a tombstone already, by whomever."""
    mine = burial.tombstone
    said = tombstones(shelf.registry, burial.repository, mine.digest)
    same = (one for one in said if (one.event, one.release) == (mine.event, mine.release))
    return next(same, None)


def _tombstone(
    event: Event, asked: Withdrawal, cell: str | None, digest: str, replaced_by: str | None
) -> Tombstone:
    return Tombstone(
        event=event,
        release=asked.release,
        cell=cell,
        digest=digest,
        by=asked.by,
        reason=asked.reason,
        time=asked.time,
        replaced_by=replaced_by,
    )


def _alias(cell: IndexedCell, after: str | None) -> TagMove:
    return TagMove(repository=cell.repository, tag=NEWEST, before=cell.digest, after=after)


def _carry_out(
    kind: Literal["rollback", "yank"],
    release: str,
    shelf: Shelf,
    moves: tuple[TagMove, ...],
    burials: Sequence[Burial],
    say: Say,
) -> None:
    announced = shelf.registry.head(shelf.index_repository, WITHDRAWN)
    if not (moves or burials or shelf.is_withdrawing(announced)):
        return
    told = TagMove(repository=shelf.index_repository, tag=WITHDRAWN, before=announced, after=None)
    shelf.refuse_held((*moves, told), say)
    operation = Operation(
        kind=kind,
        release=release,
        registry=shelf.registry.host,
        index_repository=shelf.index_repository,
        commit=None,
        moves=moves,
        burials=tuple(burials),
    )
    journal = Journal.begin(shelf.journals, operation)
    carry_out(operation, shelf, journal, say)
