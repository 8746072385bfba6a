"""Public tags, moved one by one with the journal ahead; a run that was killed is finished or dropped from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import MappingProxyType

from pipeline.errors import WorldError
from pipeline.release_index import (
    NEWEST,
    TagMove,
    Tombstone,
    document,
    parse_tombstone,
    withdrawal,
)
from pipeline.world.journal import Burial, Journal, Operation, Restore, open_journals
from pipeline.world.oci import TOMBSTONE_TYPE, WITHDRAWAL_TYPE, WITHDRAWN, Manifest, qualified
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import artifact, put_artifact, read_artifact, referrers

Say = Callable[[str], None]


def finish_or_undo(folder: Path, registry: Registry, index_repository: str, say: Say) -> None:
    """Every open journal of this release index: finished where its commit is public, else dropped: no tag was moved."""
    for journal in open_journals(folder):
        operation = journal.operation()
        if operation is None:
            journal.end("undone", why="nothing had begun")
        elif (operation.registry, operation.index_repository) == (registry.host, index_repository):
            name = f"{operation.kind} of release {operation.release}"
            if is_withdrawn(operation, registry):
                journal.end("undone", why="its release was withdrawn meanwhile")
                say(f"undone: a {name} was cut off, and the release was withdrawn since")
            elif is_committed(operation, registry):
                say(f"finishing a {name} that was cut off")
                carry_out(operation, registry, journal, say)
            else:
                journal.end("undone", why="its commit is not in the registry")
                say(f"undone: a {name} was cut off before anything of it was public")


def is_committed(operation: Operation, registry: Registry) -> bool:
    commit = operation.commit
    return commit is None or registry.head(commit.repository, commit.tag) == commit.digest


def is_withdrawn(operation: Operation, registry: Registry) -> bool:
    """Whether somebody, perhaps on another host, rolled back what this was to make public."""
    commit = operation.commit
    return commit is not None and bool(tombstones(registry, commit.repository, commit.digest))


def is_overtaken(move: TagMove, release: str, registry: Registry) -> bool:
    """Whether the alias would go to an image that was taken back. Version tags stay at a yanked one."""
    if move.tag != NEWEST or move.after is None:
        return False
    return bool(withdrawn_from(registry, move.repository, move.after, release))


def carry_out(
    operation: Operation,
    registry: Registry,
    journal: Journal,
    say: Say,
    known: Mapping[str, Manifest] = MappingProxyType({}),
) -> tuple[TagMove, ...]:
    """Write tombstones, move tags and read them back, close the journal. Every step may be repeated.

    A tag that names neither what it did before nor what it should is somebody else's, from another host: left alone.
    Returns the moves of those. `known`: manifests by digest that need not be read once more.
    """
    for restore in journal.unfinished_restores():
        _restore(registry, restore)
    _announce(operation, registry, is_done=False)
    for burial in operation.burials:
        bury(registry, burial)
    mover = _Mover(operation=operation, registry=registry, journal=journal, known=known)
    left_alone = []
    # No alias before all version tags, or the other way round when a release is taken back.
    for _, moves in groupby(operation.moves, lambda move: move.tag == NEWEST):
        for ended in mover.make(tuple(moves)):
            if ended.text:
                say(ended.text)
            if ended.is_left_alone:
                left_alone.append(ended.move)
    _announce(operation, registry, is_done=True)
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
    registry: Registry
    journal: Journal
    known: Mapping[str, Manifest]

    def make(self, moves: Sequence[TagMove]) -> Iterable[_Ended]:
        """These moves, all of them in the journal before the first; begun in their order, a few side by side."""
        self.journal.write("moves", moves=[move.model_dump() for move in moves])
        # Taking back may have to restore manifests, which the journal follows one by one.
        is_promotion = self.operation.kind == "promote"
        return self.registry.each(self._one, moves) if is_promotion else map(self._one, moves)

    def _one(self, move: TagMove) -> _Ended:
        place, registry = qualified(*move.place), self.registry
        if self.operation.kind == "promote" and is_overtaken(
            move, self.operation.release, registry
        ):
            return _Ended(
                move=move, text=f"{place} does not go to {move.after}, which was withdrawn"
            )
        now = registry.head(*move.place)
        if now == move.before != move.after:
            return _Ended(move=move, text=self._set(move))
        if now != move.after:
            text = f"{place} names {now} by now; left alone"
            return _Ended(move=move, text=text, is_left_alone=True)
        return _Ended(move=move)

    def _set(self, move: TagMove) -> str:
        registry = self.registry
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


def _announce(operation: Operation, registry: Registry, *, is_done: bool) -> None:
    """One tag tells whether anything was withdrawn, for who does not want to ask at every image.

    Told before and after: who plans in between has seen a part of it, and is to plan once more.
    """
    if operation.burials:
        content = withdrawal((one.tombstone for one in operation.burials), is_done=is_done)
        said = artifact(WITHDRAWAL_TYPE, content)
        put_artifact(registry, operation.index_repository, said, content, WITHDRAWN)


def bury(registry: Registry, burial: Burial) -> None:
    """Attach a tombstone to the digest it speaks of."""
    subject = present(registry, burial.repository, burial.tombstone.digest)
    content = document(burial.tombstone)
    stone = artifact(TOMBSTONE_TYPE, content, subject)
    put_artifact(registry, burial.repository, stone, content)


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
