"""Where releases go: the public registry, its release indexes, and the journals of what this checkout did to both."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import NotAllowedError, StageRefusedError
from pipeline.release_index import NEWEST, TAG_PREFIX, ReleaseIndex, TagMove, index_tag
from pipeline.world.harbor import VERSIONS, Harbor
from pipeline.world.host_lock import folder_lock, host_lock
from pipeline.world.indexes import Indexes, stored
from pipeline.world.oci import WITHDRAWN, qualified
from pipeline.world.tag_moves import finish_or_undo

Say = Callable[[str], None]

Place = tuple[str, str]  # a repository and a tag in it


@dataclass(frozen=True, kw_only=True)
class Shelf(Indexes):
    journals: Path

    @contextmanager
    def alone(self, say: Say) -> Iterator[None]:
        """The only one on this host that moves public tags; what was cut off before is finished or undone first."""
        name = f"promote {self.registry.host}/{self.index_repository}"
        with host_lock(name, say), folder_lock(self.journals, name, say):
            finish_or_undo(self.journals, self, say)
            yield

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
            lambda move: move.after not in sound and self.standing(move, by=index.release) != move,
            open_,
        )
        return tuple(move for move, is_ in zip(open_, overtaken, strict=True) if not is_)

    def extension(self, index: ReleaseIndex) -> tuple[TagMove, ...]:
        """The move of the index's own tag, where the release is there already and gets further cells."""
        repository, tag, after = (
            self.index_repository,
            index_tag(index.release),
            stored(index).digest,
        )
        before = self.registry.head(repository, tag)
        if before in (None, after):
            return ()
        return (TagMove(repository=repository, tag=tag, before=before, after=after),)

    def refuse_withdrawn(self, index: ReleaseIndex | None) -> None:
        for stone in self.withdrawn(index) if index else ():
            raise StageRefusedError(
                stone.sentence, where=self.place(stone.release), hint="release under a new name"
            )

    def refuse_changed(self, release: str, old: ReleaseIndex | None) -> None:
        """Raises StageRefusedError unless the index is as it was read."""
        if self.index(release) != old:
            raise self._changed(release)

    def refuse_lost(self, index: ReleaseIndex) -> None:
        """Raises StageRefusedError where another host stored an index over ours that it had not seen."""
        now = self.index(index.release)
        if now is None or not set(index.cells) <= set(now.cells):
            raise self._changed(index.release)

    def _changed(self, release: str) -> StageRefusedError:
        return StageRefusedError(
            "the index of this release was changed meanwhile, perhaps from another host",
            where=self.place(release),
            hint="run the same command again: it goes on with what the index says now; what was copied stays",
        )

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

    def refuse_held(self, moves: Iterable[TagMove], say: Say) -> None:
        """Raises StageRefusedError when a rule forbids to move an alias or an index. Harbor alone tells its rules.

        Says so where nothing guards a version tag, and where this account may not know.
        """
        if not isinstance(self.registry, Harbor):
            return
        project = self.index_repository.partition("/")[0]
        try:
            rules = self.registry.immutable_rules(project)
        except NotAllowedError as error:
            say(f"whether `{NEWEST}` may move is not known before: {error}")
            return
        held, loose = [], []
        for move in moves:
            name = move.repository.partition("/")[2]
            by = [rule.sentence for rule in rules if rule.holds(name, move.tag)]
            if by and _has_to_move(move.tag):
                held.append(f"{qualified(*move.place)}: {'; '.join(by)}")
            elif not by and not _has_to_move(move.tag) and move.after:
                loose.append(qualified(*move.place))
        if held:
            raise StageRefusedError(
                "an immutable tag rule holds tags that releases have to move",
                where=f"{self.registry.host}, project {project}",
                details="\n".join(held),
                hint=f"let an administrator narrow the rule to {VERSIONS} (docs/harbor.md)",
            )
        if loose:
            say(
                f"no immutable tag rule guards {', '.join(loose)}: doctor -- --fix adds one (docs/harbor.md)"
            )


def _has_to_move(tag: str) -> bool:
    return tag in (NEWEST, WITHDRAWN) or tag.startswith(TAG_PREFIX)
