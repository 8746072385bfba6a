"""The record of a cell from the registry, by the image: for machines that never built anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.canonical import write_whole
from pipeline.cell import Cell
from pipeline.errors import PipelineError, StageRefusedError
from pipeline.matrix import Target
from pipeline.names import names
from pipeline.naming import CALVER, release_order
from pipeline.project import Project
from pipeline.signatures import PublicKey
from pipeline.stages.attest import place_of
from pipeline.stages.verify import stated
from pipeline.world.indexes import withdrawn_from
from pipeline.world.registry import Registry
from pipeline.world.sealed import record_of_release, sealed_records

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a target's releases are, and where their records go."""

    project: Project
    target: Target
    registry: Registry


def fetch_record(source: Source, cell: Cell, release: str | None, say: Say) -> bool:
    """Write the record of a release, or of the newest one, to out/; False if the registry has no such release.

    Raises StageRefusedError when what is attached to the image is not signed by the target's key, or does not hold.
    """
    project, registry = source.project, source.registry
    known, release_key = names(cell, source.target), project.release_key(source.target)
    released = [tag for tag in registry.tags(known.public) if CALVER.match(tag)]
    release = release or _newest(registry, known.public, released)
    if release not in released:
        return False
    image = f"{known.host}/{known.public}:{release}"
    place = place_of(registry, known.public, release)
    key = PublicKey.read(release_key.pem, release_key.path) if release_key else None
    try:
        known_records = sealed_records([one.statement for one in stated(place, "record", key)])
    except ValueError as error:
        raise StageRefusedError(
            f"the record that is attached to the image does not hold: {error}",
            where=image,
            hint=f"nox -s verify -- {image} says what else does not",
        ) from error
    found = record_of_release(place, known_records, release)
    if found and found[0].cell == cell.id:
        path = project.store.folder(release, cell.chip_id, cell.model_id) / "record.json"
        write_whole(path, found[1])
        by = f"signed by {release_key.fingerprint}" if release_key else "signed by nobody"
        say(f"{path.relative_to(project.root)}: fetched from {image}, {by}")
        return True
    by = f"signed by {release_key.path}" if release_key else "without a signature"
    raise StageRefusedError(
        f"no record of {cell.id} {by} is attached to the image",
        where=image,
        hint="ask who promoted it, and under which key",
    )


def _newest(registry: Registry, repository: str, released: Sequence[str]) -> str | None:
    """The newest release that nobody withdrew; where all were, the newest, whose card says so."""
    newest_first = sorted(released, key=release_order, reverse=True)
    for release in newest_first:
        digest = registry.head(repository, release)
        if digest and not withdrawn_from(registry, repository, digest, release):
            return release
    return newest_first[0] if newest_first else None


def fetch_where_none(source: Source, cell: Cell, release: str | None, say: Say) -> None:
    """Fetch the record where out/ has none. A registry that cannot be asked is told, for committed records may do."""
    known = source.project.store.releases(cell.chip_id, cell.model_id)
    if known if release is None else release in known:
        return
    try:
        if not fetch_record(source, cell, release, say):
            say(f"{source.target.registry} has no release {release or 'at all'} of {cell.id}")
    except StageRefusedError:
        raise
    except PipelineError as error:
        say(f"no record of {cell.id} was fetched: {error}")
