"""Which releases and images of a registry stand: those that have an index, and that no tombstone withdraws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from pipeline.naming import release_order
from pipeline.release_index import (
    INDEX_TYPE,
    NEWEST,
    IndexedCell,
    ReleaseIndex,
    TagMove,
    Tombstone,
    document,
    index_tag,
    indexed_releases,
    parse_announcement,
    parse_index,
    parse_tombstone,
)
from pipeline.world.oci import TOMBSTONE_TYPE, Manifest
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import artifact, read_artifact, referrers


@dataclass(frozen=True, kw_only=True)
class Indexes:
    """The release indexes of one repository, and what they say together with tombstones."""

    registry: Registry
    index_repository: str

    def releases(self) -> tuple[str, ...]:
        """All that have an index, newest first."""
        return indexed_releases(self.registry.tags(self.index_repository))

    def index(self, release: str) -> ReleaseIndex | None:
        content = read_artifact(self.registry, self.index_repository, index_tag(release))
        return parse_index(content, self.place(release)) if content is not None else None

    def place(self, release: str) -> str:
        return f"{self.registry.host}/{self.index_repository}:{index_tag(release)}"

    def is_withdrawing(self, announced: str | None) -> bool:
        """Whether this announcement is of a withdrawal that is not done; perhaps it was cut off."""
        if announced is None:
            return False
        content = read_artifact(self.registry, self.index_repository, announced)
        where = f"{self.registry.host}/{self.index_repository}@{announced}"
        return content is None or not parse_announcement(content, where).is_done

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

    def yanks(self, repository: str, digest: str) -> tuple[Tombstone, ...]:
        return _yanks(tombstones(self.registry, repository, digest))

    def stands(self, repository: str, digest: str, *, by: str = "") -> bool:
        """Whether an alias may name this image: nobody yanked it, and not all its releases were rolled back.

        `by`: a release that names it, whether or not its index is stored yet.
        """
        said = tombstones(self.registry, repository, digest)
        if not said or _yanks(said):
            return not said
        if by and by not in [stone.release for stone in said]:
            return True
        return any(cell.digest == digest for _, cell in self._released(repository))

    def standing(self, move: TagMove, *, by: str = "") -> TagMove:
        """The same; of an alias whose target was withdrawn, to the newest image that stands. Version tags stay."""
        if move.tag != NEWEST or move.after is None:
            return move
        if self.stands(move.repository, move.after, by=by):
            return move
        return move.model_copy(update={"after": self.newest_digest(move.repository)})

    def keeps(self, move: TagMove) -> bool:
        """Whether an alias is not to be taken away from what it names."""
        if move.tag != NEWEST or move.before is None:
            return False
        return self.stands(move.repository, move.before)

    def is_behind(self, move: TagMove, now: str | None) -> bool:
        """Whether an alias names a release by now that is older than the one it is to go to, which is the newest."""
        if move.tag != NEWEST or now in (None, move.before, move.after):
            return False
        newest, *older = [cell.digest for _, cell in self._released(move.repository)] or [""]
        return newest == move.after and now in older

    def ahead(self, release: str) -> frozenset[str]:
        """Repositories in which a newer release has an image that nobody withdrew."""
        mine = release_order(release)
        newer = takewhile(lambda one: release_order(one) > mine, self.releases())
        indexes = [
            index for one in newer if (index := self.index(one)) and not self.withdrawn(index)
        ]
        cells = [cell for index in indexes for cell in index.cells]
        return frozenset(
            cell.repository for cell in cells if not self.yanks(cell.repository, cell.digest)
        )

    def newest(self, repository: str, *, but: str = "") -> tuple[str, IndexedCell] | None:
        """The newest release with an image in this repository that nobody withdrew; not `but`, a release or digest."""
        for release, cell in self._released(repository):
            if but not in (release, cell.digest) and not self.yanks(repository, cell.digest):
                return release, cell
        return None

    def newest_digest(self, repository: str, *, but: str = "") -> str | None:
        best = self.newest(repository, but=but)
        return best[1].digest if best else None

    def _released(self, repository: str) -> Iterator[tuple[str, IndexedCell]]:
        """By every release that was not rolled back, newest first."""
        for release in self.releases():
            index = self.index(release)
            found = [cell for cell in index.cells if cell.repository == repository] if index else []
            if index and found and not self.withdrawn(index):
                yield release, found[0]


def stored(index: ReleaseIndex) -> Manifest:
    """The manifest under which an index is, or will be, in the registry."""
    return artifact(INDEX_TYPE, document(index))


def tombstones(registry: Registry, repository: str, digest: str) -> tuple[Tombstone, ...]:
    """What was said of a digest when it was withdrawn; for cards, `verify`, and who chooses what an alias names."""
    found = []
    for descriptor in referrers(registry, repository, digest, TOMBSTONE_TYPE):
        content = read_artifact(registry, repository, descriptor.digest)
        if content is not None:
            where = f"{registry.host}/{repository}@{descriptor.digest}"
            found.append(parse_tombstone(content, where))
    return tuple(sorted(found, key=lambda stone: stone.time))


def withdrawn_from(
    registry: Registry, repository: str, digest: str, release: str
) -> tuple[Tombstone, ...]:
    """What was said of an image in one release: a yank is of the image, a rollback of its own release alone."""
    said = tombstones(registry, repository, digest)
    return tuple(one for one in said if one.event == "yanked" or one.release == release)


def _yanks(said: Iterable[Tombstone]) -> tuple[Tombstone, ...]:
    return tuple(stone for stone in said if stone.event == "yanked")
