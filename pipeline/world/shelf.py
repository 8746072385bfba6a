"""Where releases go: the public registry, its release indexes, and the journals of what this checkout did to both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageRefusedError
from pipeline.release_index import NEWEST, ReleaseIndex, TagMove
from pipeline.world.host_lock import host_lock
from pipeline.world.oci import qualified
from pipeline.world.standing import Indexes
from pipeline.world.tag_moves import finish_or_undo


@dataclass(frozen=True, kw_only=True)
class Shelf(Indexes):
    journals: Path

    @contextmanager
    def alone(self, say: Callable[[str], None]) -> Iterator[None]:
        """The only one on this host that moves public tags; what was cut off before is finished or undone first."""
        with host_lock(f"promote {self.registry.host}/{self.index_repository}", say):
            finish_or_undo(self.journals, self, say)
            yield

    def due(self, index: ReleaseIndex) -> tuple[TagMove, ...]:
        """Moves that were never made. An alias that moved on with a later release, or back by a yank, is not due."""
        return tuple(move for move in index.moves if self._is_due(move, index.release))

    def _is_due(self, move: TagMove, release: str) -> bool:
        if move.before == move.after or self.registry.head(*move.place) != move.before:
            return False
        return self.standing(move, by=release) == move

    def refuse_taken(self, moves: Iterable[TagMove]) -> None:
        """Raises StageRefusedError when a version tag names another image than it is to name."""
        taken = []
        for move in moves:
            found = self.registry.head(*move.place) if move.tag != NEWEST else None
            if found not in (None, move.after):
                taken.append(f"{qualified(*move.place)} names {found}, not {move.after}")
        if taken:
            raise StageRefusedError(
                "promoting: version tags exist and name other images",
                where=self.registry.host,
                details="\n".join(taken),
                hint="published tags do not move; release under a new name",
            )
