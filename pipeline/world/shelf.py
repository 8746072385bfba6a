"""Where releases go: the public registry, its release indexes, and the journals of what this checkout did to both."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import StageRefusedError
from pipeline.release_index import (
    INDEX_TYPE,
    NEWEST,
    ReleaseIndex,
    TagMove,
    Tombstone,
    document,
    index_tag,
    indexed_releases,
    parse_index,
)
from pipeline.world.host_lock import host_lock
from pipeline.world.oci import Manifest, qualified
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import artifact, read_artifact
from pipeline.world.tag_moves import finish_or_undo, is_overtaken, tombstones, withdrawn_from

Place = tuple[str, str]  # a repository and a tag in it


@dataclass(frozen=True, kw_only=True)
class Shelf:
    registry: Registry
    index_repository: str
    journals: Path

    @contextmanager
    def alone(self, say: Callable[[str], None]) -> Iterator[None]:
        """The only one on this host that moves public tags; what was cut off before is finished or undone first."""
        with host_lock(f"promote {self.registry.host}/{self.index_repository}", say):
            finish_or_undo(self.journals, self.registry, self.index_repository, say)
            yield

    def releases(self) -> tuple[str, ...]:
        """All that have an index, newest first."""
        return indexed_releases(self.registry.tags(self.index_repository))

    def index(self, release: str) -> ReleaseIndex | None:
        content = read_artifact(self.registry, self.index_repository, index_tag(release))
        return parse_index(content, self.place(release)) if content is not None else None

    def place(self, release: str) -> str:
        return f"{self.registry.host}/{self.index_repository}:{index_tag(release)}"

    def withdrawn(self, index: ReleaseIndex) -> tuple[Tombstone, ...]:
        """What was said of the release as a whole."""
        return tombstones(self.registry, self.index_repository, stored(index).digest)

    def withdrawn_cell(self, release: str, repository: str, digest: str) -> tuple[Tombstone, ...]:
        """What was said of an image in a release, or of the release as a whole."""
        index = self.index(release)
        whole = self.withdrawn(index) if index else ()
        return (*withdrawn_from(self.registry, repository, digest, release), *whole)

    def holds(self, release: str, repository: str, digest: str) -> bool:
        """Whether the index of a release names this image; without it nothing of the release is public."""
        index = self.index(release)
        cells = index.cells if index else ()
        return (repository, digest) in [(cell.repository, cell.digest) for cell in cells]

    def named(self, places: Iterable[Place]) -> dict[Place, str | None]:
        """What each tag of a repository names now; None: nothing."""
        asked = tuple(dict.fromkeys(places))
        found = self.registry.each(lambda place: self.registry.head(*place), asked)
        return dict(zip(asked, found, strict=True))

    def due(
        self,
        index: ReleaseIndex,
        known: Mapping[Place, str | None] = MappingProxyType({}),
        sound: Container[str] = (),
    ) -> tuple[TagMove, ...]:
        """Moves that were never made. An alias that moved on with a later release, or back by a yank, is not due.

        Asked just now: `known`, what some of the tags name, and `sound`, digests that nobody yanked.
        """
        others = self.named(move.place for move in index.moves if move.place not in known)
        now = {**known, **others}
        open_ = [move for move in index.moves if now[move.place] == move.before != move.after]
        overtaken = self.registry.each(
            lambda move: (
                move.after not in sound and is_overtaken(move, index.release, self.registry)
            ),
            open_,
        )
        return tuple(move for move, is_ in zip(open_, overtaken, strict=True) if not is_)

    def refuse_taken(
        self, moves: Iterable[TagMove], known: Mapping[Place, str | None] | None = None
    ) -> None:
        """Raises StageRefusedError when a version tag names another image than it is to name."""
        versions = [move for move in moves if move.tag != NEWEST]
        now = self.named(move.place for move in versions) if known is None else known
        taken = [
            f"{qualified(*move.place)} names {now[move.place]}, not {move.after}"
            for move in versions
            if now[move.place] not in (None, move.after)
        ]
        if taken:
            raise StageRefusedError(
                "promoting: version tags exist and name other images",
                where=self.registry.host,
                details="\n".join(taken),
                hint="published tags do not move; release under a new name",
            )


def stored(index: ReleaseIndex) -> Manifest:
    """The manifest under which an index is, or will be, in the registry."""
    return artifact(INDEX_TYPE, document(index))
