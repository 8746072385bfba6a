"""Public tags, moved one by one with the journal ahead; a run that was killed is finished or dropped from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from pipeline.errors import WorldError
from pipeline.release_index import (
    NEWEST,
    TagMove,
    Tombstone,
    document,
    parse_tombstone,
)
from pipeline.world.journal import Burial, Journal, Operation, Restore, open_journals
from pipeline.world.oci import TOMBSTONE_TYPE, Manifest, qualified
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
    operation: Operation, registry: Registry, journal: Journal, say: Say
) -> tuple[TagMove, ...]:
    """Write tombstones, move tags and read them back, close the journal. Every step may be repeated.

    A tag that names neither what it did before nor what it should is somebody else's, from another host: left alone.
    Returns the moves of those. No alias moves before the version tags are read back.
    """
    for restore in journal.unfinished_restores():
        _restore(registry, restore)
    for burial in operation.burials:
        bury(registry, burial)
    named = dict.fromkeys((one.repository, one.after) for one in operation.moves if one.after)
    manifests = registry.each(lambda place: registry.manifest(*place), named)
    mover = _Mover(operation, registry, journal, say, dict(zip(named, manifests, strict=True)))
    for _, moves in groupby(operation.moves, lambda move: move.tag == NEWEST):
        mover.make(tuple(moves))
    journal.end("done")
    return tuple(mover.left_alone)


@dataclass
class _Mover:
    """Makes moves of one operation, one after another, with what tags are to name at hand."""

    operation: Operation
    registry: Registry
    journal: Journal
    say: Say
    manifests: Mapping[tuple[str, str], Manifest | None]
    left_alone: list[TagMove] = field(default_factory=list)

    def make(self, moves: Sequence[TagMove]) -> None:
        self.journal.write("moves", moves=[move.model_dump() for move in moves])
        made = [move for move in moves if self._is_made(move)]
        found = self.registry.each(lambda move: self.registry.head(*move.place), made)
        for move, now in zip(made, found, strict=True):
            if now != move.after:
                raise WorldError(
                    f"the tag {move.tag} was set to {move.after} and now names {now or 'nothing'}",
                    where=f"{self.registry.host}/{move.repository}",
                    hint="another release may be writing this tag; look who, then run the same command again",
                )

    def _is_made(self, move: TagMove) -> bool:
        """Whether the tag was set here."""
        operation, registry = self.operation, self.registry
        if operation.kind == "promote" and is_overtaken(move, operation.release, registry):
            self.say(f"{qualified(*move.place)} does not go to {move.after}, which was withdrawn")
            return False
        now = registry.head(*move.place)
        if now != move.before or move.before == move.after:
            if now != move.after:
                self.say(f"{qualified(*move.place)} names {now} by now; left alone")
                self.left_alone.append(move)
            return False
        self.say(f"tag {move.sentence}")
        if move.after is None:
            if not _untag(registry, move, self.journal):
                self.say(f"{qualified(*move.place)} stays: this registry does not delete it")
            return False
        manifest = self.manifests[move.repository, move.after]
        if manifest is None:
            raise _absent(registry, move.repository, move.after)
        registry.put_manifest(move.repository, move.tag, manifest.body, manifest.media_type)
        return True


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
        raise _absent(registry, repository, digest)
    return manifest


def _absent(registry: Registry, repository: str, digest: str) -> WorldError:
    return WorldError(
        f"the manifest {qualified(repository, digest)} is not there",
        where=registry.host,
        hint="its repository was cleaned up; build the image again",
    )


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
