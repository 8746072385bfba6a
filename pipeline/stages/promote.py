"""promote: tested images to the public repositories, all of them or none.

Copied by digest without tags, then the release index is stored: from that one request on the release is public, and
its tags are moved in a fixed order, version tags before aliases. Killed before it, nothing public has changed; killed
after it, the next run finishes the tags.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date

from pipeline.admission import Accepted, Release, admitted, refuse_yanked
from pipeline.errors import PipelineError, StageRefusedError
from pipeline.gates import attested_sha256
from pipeline.release_index import (
    NEWEST,
    IndexedCell,
    ReleaseIndex,
    TagMove,
    document,
    extended,
    index_tag,
)
from pipeline.results import PromoteResult
from pipeline.world.indexes import stored
from pipeline.world.journal import Commit, Journal, Operation
from pipeline.world.oci import Manifest
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import put_artifact
from pipeline.world.registry_copy import Copy, Moved, Route, copy_images
from pipeline.world.shelf import Place, Shelf
from pipeline.world.tag_moves import carry_out, present

Say = Callable[[str], None]


def promote(
    release: Release, shelf: Shelf, *, today: date, say: Say
) -> Mapping[str, PromoteResult]:
    """By cell. Raises StageRefusedError, before anything is copied, for a gate not passed or a version tag taken."""
    with shelf.alone(say):
        accepted, left_out = admitted(release, shelf, today)
        old = shelf.index(release.name)
        now = shelf.named(
            (repository, tag)
            for one in accepted
            for repository in one.repositories
            for tag in (release.name, NEWEST)
        )
        index = _index(release.name, shelf, accepted, left_out, old, now)
        due = shelf.due(index, now, {one.digest for one in accepted})
        moved = _publish(index, old, due, shelf, accepted, say) if index != old or due else {}
    place = f"{shelf.registry.host}/{shelf.index_repository}@{stored(index).digest}"
    return {
        one.candidate.cell: PromoteResult(
            reference=f"{shelf.registry.host}/{one.candidate.public}@{one.digest}",
            tag=release.name,
            digest=one.digest,
            copied_bytes=moved.get(one.candidate.cell, Moved()).copied_bytes,
            mounted_blobs=moved.get(one.candidate.cell, Moved()).mounted_blobs,
            index=place,
            left_out=left_out,
            waiver=one.waiver,
        )
        for one in accepted
    }


def _index(
    name: str,
    shelf: Shelf,
    accepted: Sequence[Accepted],
    left_out: tuple[str, ...],
    old: ReleaseIndex | None,
    now: Mapping[Place, str | None],
) -> ReleaseIndex:
    """The index as it has to be: the old one where that names all of these, else with them added."""
    shelf.refuse_withdrawn(old)
    known = {cell.cell: cell for cell in old.cells} if old else {}
    versions = [
        TagMove(repository=repository, tag=name, before=None, after=one.digest)
        for one in accepted
        for repository in one.repositories
    ]
    shelf.refuse_taken(versions, now)
    _refuse_other_digests(known, accepted, shelf.place(name))
    new = [one for one in accepted if one.candidate.cell not in known]
    if old and not new:
        return old
    ahead = shelf.ahead(name)
    aliases = [
        TagMove(repository=public, tag=NEWEST, before=now[public, NEWEST], after=one.digest)
        for one in new
        for public in [one.candidate.public]
        if public not in ahead
    ]
    return extended(old, name, map(_indexed, new), (*versions, *aliases), left_out)


def _indexed(one: Accepted) -> IndexedCell:
    return IndexedCell(
        cell=one.candidate.cell,
        repository=one.candidate.public,
        digest=one.digest,
        record_sha256=attested_sha256(one.candidate.record),
        waiver=one.waiver,
    )


def _refuse_other_digests(
    known: Mapping[str, IndexedCell], accepted: Sequence[Accepted], where: str
) -> None:
    other = [
        f"{one.candidate.cell}: {known[one.candidate.cell].digest}, not {one.digest}"
        for one in accepted
        if one.candidate.cell in known and known[one.candidate.cell].digest != one.digest
    ]
    if other:
        raise StageRefusedError(
            "promoting: the index of this release names other images",
            where=where,
            details="\n".join(other),
            hint="a release does not change; release under a new name",
        )


def _publish(
    index: ReleaseIndex,
    old: ReleaseIndex | None,
    due: tuple[TagMove, ...],
    shelf: Shelf,
    accepted: Sequence[Accepted],
    say: Say,
) -> dict[str, Moved]:
    registry, repository, tag = shelf.registry, shelf.index_repository, index_tag(index.release)
    manifest = stored(index)
    needed = (*due, *shelf.extension(index))
    shelf.refuse_held(needed, say)
    operation = Operation(
        kind="promote",
        release=index.release,
        registry=registry.host,
        index_repository=repository,
        commit=Commit(repository=repository, tag=tag, digest=manifest.digest),
        moves=due,
    )
    journal = Journal.begin(shelf.journals, operation)
    try:
        moved, manifests = _copied(accepted, registry, frozenset(move.repository for move in due))
        # Layers take minutes to hours, and no lock of ours reaches other hosts: all that counts is asked again.
        registry.each(lambda one: refuse_yanked(one, shelf), accepted)
        shelf.refuse_taken(due)
        shelf.refuse_held(needed, lambda _: None)
        put_artifact(registry, repository, manifest, document(index))
        shelf.refuse_withdrawn(old)
        shelf.refuse_changed(index.release, old)
    except PipelineError:
        journal.end("undone", why="it failed before its commit")
        raise
    # From here an answer that is lost leaves the journal open: whether this counts is asked by the next run.
    journal.write("commit", digest=manifest.digest)
    registry.put_manifest(repository, tag, manifest.body, manifest.media_type)
    present(registry, repository, tag)
    shelf.refuse_taken(carry_out(operation, shelf, journal, say, manifests))
    shelf.refuse_lost(index)
    return moved


def _copied(
    accepted: Sequence[Accepted], registry: Registry, due: frozenset[str]
) -> tuple[dict[str, Moved], dict[str, Manifest]]:
    """All into the public repositories, then from there into those of the long names, where tags are due.

    Gives what was moved for each cell, and the manifests of the images by digest.
    """
    moved = {one.candidate.cell: Moved() for one in accepted}
    manifests: dict[str, Manifest] = {}
    for hop in range(max(len(one.repositories) for one in accepted)):
        going = [one for one in accepted if due.intersection(one.repositories[hop : hop + 1])]
        found, of_images = copy_images(registry, [_copy(one, hop, registry) for one in going])
        manifests |= of_images
        for one, more in zip(going, found, strict=True):
            moved[one.candidate.cell] += more
    return moved, manifests


def _copy(one: Accepted, hop: int, registry: Registry) -> Copy:
    candidate = one.candidate
    route = Route(
        source=registry if hop else candidate.source,
        target=registry,
        source_repository=one.repositories[hop - 1] if hop else candidate.source_repository,
        target_repository=one.repositories[hop],
    )
    return Copy(route=route, digest=one.digest)
