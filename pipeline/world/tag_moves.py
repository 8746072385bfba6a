"""Public tags, moved one by one with the journal ahead; a run that was killed is finished or dropped from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.errors import WorldError
from pipeline.release_index import NEWEST, TagMove, document
from pipeline.world.indexes import Indexes, tombstones
from pipeline.world.journal import Burial, Journal, Operation, Restore, open_journals
from pipeline.world.oci import TOMBSTONE_TYPE, Manifest, qualified
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


def carry_out(operation: Operation, indexes: Indexes, journal: Journal, say: Say) -> None:
    """Write tombstones, move tags and read them back, close the journal. Every step may be repeated.

    A tag that names neither what it did before nor what it should is somebody else's, from another host: left alone,
    but for an alias that names an older release than this one by now.
    """
    registry = indexes.registry
    for restore in journal.unfinished_restores():
        _restore(registry, restore)
    for burial in operation.burials:
        bury(registry, burial)
    for asked in operation.moves:
        if operation.kind != "promote" and indexes.keeps(asked):
            say(f"{qualified(*asked.place)} names an image that another release has; left alone")
            continue
        move = indexes.standing(asked)
        if move != asked:
            say(f"{qualified(*move.place)} does not go to {asked.after}, which was withdrawn")
        now = registry.head(*move.place)
        if operation.kind == "promote" and indexes.is_behind(move, now):
            move = move.model_copy(update={"before": now})
        journal.write("move", **move.model_dump())
        if now == move.before != move.after:
            say(f"tag {move.sentence}")
            _set(registry, move, journal, say)
        elif now != move.after:
            say(f"{qualified(*move.place)} names {now} by now; left alone")
    journal.end("done")


def _set(registry: Registry, move: TagMove, journal: Journal, say: Say) -> None:
    if move.after is None:
        if not _untag(registry, move, journal):
            say(f"{qualified(*move.place)} stays: this registry does not delete it")
        return
    manifest = present(registry, move.repository, move.after)
    registry.put_manifest(move.repository, move.tag, manifest.body, manifest.media_type)
    found = registry.head(*move.place)
    if found != move.after:
        raise WorldError(
            f"the tag {move.tag} was set to {move.after} and now names {found or 'nothing'}",
            where=f"{registry.host}/{move.repository}",
            hint="another release may be writing this tag; look who, then run the same command again",
        )


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
