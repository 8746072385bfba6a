"""Public tags, moved one by one with the journal ahead; a run that was killed is finished or dropped from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import WorldError
from pipeline.release_index import NEWEST, Announcement, TagMove, document
from pipeline.world.indexes import Indexes, tombstones
from pipeline.world.journal import Burial, Journal, Operation, Restore, open_journals
from pipeline.world.oci import TOMBSTONE_TYPE, WITHDRAWAL_TYPE, WITHDRAWN, Manifest, qualified
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import artifact, put_artifact

Say = Callable[[str], None]


def finish_or_undo(folder: Path, indexes: Indexes, say: Say) -> None:
    """Every open journal of this release index: finished where its commit is public, else dropped: no tag was moved."""
    for journal in open_journals(folder):
        operation = journal.operation()
        if operation is None:
            journal.end("undone", why="nothing had begun")
        elif operation.registry == indexes.registry.host:
            _settle(operation, indexes, journal, say)


def _settle(operation: Operation, indexes: Indexes, journal: Journal, say: Say) -> None:
    name = f"{operation.kind} of release {operation.release}"
    if not operation.index and not _has_what(operation, indexes):
        say(
            f"left: a {name}, cut off in a version that did not write whose it is; {indexes.index_repository} does not"
            f" have its images. If no target has, see that no `{NEWEST}` names one of them, then remove {journal.path}"
        )
    elif operation.index not in ("", indexes.index_repository):
        return
    elif is_withdrawn(operation, indexes.registry):
        journal.end("undone", why="its release was withdrawn meanwhile")
        say(f"undone: a {name} was cut off, and the release was withdrawn since")
    elif is_committed(operation, indexes.registry):
        say(f"finishing a {name} that was cut off")
        carry_out(operation, indexes, journal, say)
    else:
        journal.end("undone", why="its commit is not in the registry")
        say(f"undone: a {name} was cut off before anything of it was public")


def _has_what(operation: Operation, indexes: Indexes) -> bool:
    """Whether the release of this index has every image that is taken back."""
    taken = [(one.repository, one.tombstone.digest) for one in operation.burials]
    return all(indexes.holds(operation.release, *image) for image in taken)


def is_committed(operation: Operation, registry: Registry) -> bool:
    commit = operation.commit
    return commit is None or registry.head(commit.repository, commit.tag) == commit.digest


def is_withdrawn(operation: Operation, registry: Registry) -> bool:
    """Whether somebody, perhaps on another host, rolled back what this was to make public."""
    commit = operation.commit
    return commit is not None and bool(tombstones(registry, commit.repository, commit.digest))


def carry_out(
    operation: Operation,
    indexes: Indexes,
    journal: Journal,
    say: Say,
    known: Mapping[str, Manifest] = MappingProxyType({}),
) -> tuple[TagMove, ...]:
    """Write tombstones, move tags and read them back, close the journal. Every step may be repeated.

    A tag that names neither what it did before nor what it should is somebody else's, from another host: left alone,
    but for an alias that names an older release than this one by now. Returns the moves of those. `known`: manifests
    by digest that need not be read once more.
    """
    registry = indexes.registry
    for restore in journal.unfinished_restores():
        _restore(registry, restore)
    _announce(operation, indexes, is_done=False)
    for burial in operation.burials:
        bury(registry, burial)
    mover = _Mover(operation=operation, indexes=indexes, journal=journal, known=known)
    left_alone = []
    # No alias before all version tags, or the other way round when a release is taken back.
    for _, moves in groupby(operation.moves, lambda move: move.tag == NEWEST):
        for ended in mover.make(tuple(moves)):
            if ended.text:
                say(ended.text)
            if ended.is_left_alone:
                left_alone.append(ended.move)
    _announce(operation, indexes, is_done=True)
    journal.end("done")
    return tuple(left_alone)


@dataclass(frozen=True, kw_only=True)
class _Ended:
    move: TagMove
    text: str = ""  # for people
    is_left_alone: bool = False


@dataclass(frozen=True, kw_only=True)
class _Mover:
    operation: Operation
    indexes: Indexes
    journal: Journal
    known: Mapping[str, Manifest]

    @property
    def is_promotion(self) -> bool:
        return self.operation.kind == "promote"

    def make(self, moves: Sequence[TagMove]) -> Iterable[_Ended]:
        """These moves, all of them in the journal before the first; begun in their order, a few side by side."""
        self.journal.write("moves", moves=[move.model_dump() for move in moves])
        # Taking back may have to restore manifests, which the journal follows one by one.
        each = self.indexes.registry.each if self.is_promotion else map
        return each(self._one, moves)

    def _one(self, asked: TagMove) -> _Ended:
        place = qualified(*asked.place)
        if not self.is_promotion and self.indexes.keeps(asked):
            text = f"{place} names an image that another release has; left alone"
            return _Ended(move=asked, text=text)
        move, now = self.indexes.standing(asked), self.indexes.registry.head(*asked.place)
        if self.is_promotion and self.indexes.is_behind(move, now):
            move = move.model_copy(update={"before": now})
        if move != asked:
            self.journal.write("move", **move.model_dump())
        ended = self._made(move, now)
        if move.after == asked.after:
            return ended
        why = f"{place} does not go to {asked.after}, which was withdrawn"
        return replace(ended, text="; ".join(filter(None, (why, ended.text))))

    def _made(self, move: TagMove, now: str | None) -> _Ended:
        if now == move.before != move.after:
            return _Ended(move=move, text=self._set(move))
        if now != move.after:
            text = f"{qualified(*move.place)} names {now} by now; left alone"
            return _Ended(move=move, text=text, is_left_alone=True)
        return _Ended(move=move)

    def _set(self, move: TagMove) -> str:
        registry = self.indexes.registry
        if move.after is None:
            if _untag(registry, move, self.journal):
                return f"tag {move.sentence}"
            return f"{qualified(*move.place)} stays: this registry does not delete it"
        manifest = self.known.get(move.after) or present(registry, move.repository, move.after)
        registry.put_manifest(move.repository, move.tag, manifest.body, manifest.media_type)
        found = registry.head(*move.place)
        if found != move.after:
            raise WorldError(
                f"the tag {move.tag} was set to {move.after} and now names {found or 'nothing'}",
                where=f"{registry.host}/{move.repository}",
                hint="another release may be writing this tag; look who, then run the same command again",
            )
        return f"tag {move.sentence}"


def _announce(operation: Operation, indexes: Indexes, *, is_done: bool) -> None:
    """One tag tells whether anything was withdrawn, for who does not want to ask at every image.

    Told before and after: who plans in between has seen a part of it, and is to plan once more. Never the same twice:
    a withdrawal that is finished after another one would else hide that.
    """
    if operation.kind != "promote":
        stones = tuple(one.tombstone for one in operation.burials)
        content = document(Announcement(told=datetime.now(UTC), is_done=is_done, tombstones=stones))
        said = artifact(WITHDRAWAL_TYPE, content)
        put_artifact(indexes.registry, indexes.index_repository, said, content, WITHDRAWN)


def bury(registry: Registry, burial: Burial) -> None:
    """Attach a tombstone to the digest it speaks of."""
    subject = present(registry, burial.repository, burial.tombstone.digest)
    content = document(burial.tombstone)
    stone = artifact(TOMBSTONE_TYPE, content, subject)
    put_artifact(registry, burial.repository, stone, content)


def present(registry: Registry, repository: str, digest: str) -> Manifest:
    manifest = registry.manifest(repository, digest)
    if manifest is None:
        raise WorldError(
            f"the manifest {qualified(repository, digest)} is not there",
            where=registry.host,
            hint="its repository was cleaned up; build the image again",
        )
    return manifest


def _untag(registry: Registry, move: TagMove, journal: Journal) -> bool:
    """Delete a tag and leave its digest; False if the registry does neither that nor deletes manifests unharmed."""
    digest = registry.head(*move.place)
    if digest is None or registry.delete(*move.place):
        return True
    if not registry.keeps_referrers:
        return False
    manifest = present(registry, move.repository, digest)
    others = [tag for tag in registry.tags(move.repository) if tag != move.tag]
    restore = Restore(
        repository=move.repository,
        digest=digest,
        media_type=manifest.media_type,
        body=manifest.body.decode(),
        tags=tuple(tag for tag in others if registry.head(move.repository, tag) == digest),
    )
    # Between these two the digest cannot be pulled, and a kill would lose it: hence its body in the journal.
    journal.write("restore", manifest=restore.model_dump())
    is_deleted = registry.delete(move.repository, digest)
    _restore(registry, restore)
    journal.write("restored", manifest=restore.model_dump())
    return is_deleted


def _restore(registry: Registry, restore: Restore) -> None:
    for reference in (restore.digest, *restore.tags):
        if registry.head(restore.repository, reference) != restore.digest:
            body = restore.body.encode()
            registry.put_manifest(restore.repository, reference, body, restore.media_type)
