"""gc --dry-run: which images in staging nothing names any more. Nothing is deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.errors import NotAllowedError
from pipeline.matrix import Target
from pipeline.names import names
from pipeline.project import Project
from pipeline.world.oci import Manifest
from pipeline.world.registry import Registry
from pipeline.world.shelf import Shelf

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
OF_A_SUBJECT = re.compile(r"sha256-([0-9a-f]{64})(\.[a-z]+)?")
# Whatever these say of a digest is a reason to keep it.
SPEAKING = ("record.json", "tombstone.json", "*.md", "*.jsonl", "imported.yaml")


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """A tag in staging, what it names, and what that takes."""

    repository: str
    tag: str
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Collection:
    kept: tuple[Tagged, ...]
    unnamed: tuple[Tagged, ...]
    freed_bytes: int  # of blobs that no kept image of staging has


def collect_unnamed(
    project: Project, target: Target, staging: Registry, shelf: Shelf
) -> Collection:
    """Kept is what a record, a card, a release index or a public tag names, with its children and what refers to it."""
    named = {*_named_here(project), *_named_in_public(project, target, shelf)}
    tagged = tuple(_tagged(project, target, staging))
    named |= {
        child.digest
        for one in tagged
        if one.manifest.digest in named
        for child in one.manifest.content.manifests
    }
    kept = tuple(one for one in tagged if _is_kept(one, named))
    unnamed = tuple(one for one in tagged if not _is_kept(one, named))
    held = _blobs(kept)
    freed = {digest: size for digest, size in _blobs(unnamed).items() if digest not in held}
    return Collection(kept=kept, unnamed=unnamed, freed_bytes=sum(freed.values()))


def _is_kept(one: Tagged, named: set[str]) -> bool:
    subject = OF_A_SUBJECT.fullmatch(one.tag)
    return (f"sha256:{subject[1]}" if subject else one.manifest.digest) in named


def _blobs(images: Iterable[Tagged]) -> dict[str, int]:
    return {blob.digest: blob.size_bytes for one in images for blob in one.manifest.blobs}


def _named_here(project: Project) -> Iterator[str]:
    """By any record, card, row or tombstone of this checkout, those of the hub folder and of releases long gone too."""
    for root in (project.store.root, project.records.root):
        for pattern in SPEAKING:
            for path in root.rglob(pattern):
                yield from DIGEST.findall(path.read_text("utf-8", errors="replace"))


def _named_in_public(project: Project, target: Target, shelf: Shelf) -> Iterator[str]:
    for release in shelf.releases():
        if index := shelf.index(release):
            yield from (cell.digest for cell in index.cells)
            yield from (
                digest for move in index.moves for digest in (move.before, move.after) if digest
            )
    for repository in dict.fromkeys(names(cell, target).public for cell in project.cells):
        for tag in shelf.registry.tags(repository):
            yield from filter(None, [shelf.registry.head(repository, tag)])


def _tagged(project: Project, target: Target, staging: Registry) -> Iterator[Tagged]:
    for repository in _staging_repositories(project, target, staging):
        for tag in staging.tags(repository):
            if manifest := staging.manifest(repository, tag):
                yield Tagged(repository=repository, tag=tag, manifest=manifest)


def _staging_repositories(project: Project, target: Target, staging: Registry) -> list[str]:
    """All under the staging prefix; where the catalog is not for us, those of the matrix."""
    mine = [names(cell, target) for cell in project.cells]
    known = {
        repository
        for name in mine
        for repository in (name.staging_base, name.staging_runtime, name.staging_model)
    }
    try:
        listed = staging.repositories()
    except NotAllowedError:
        return sorted(known)
    prefix = mine[0].staging_base.rpartition("/")[0].rpartition("/")[0]
    return [name for name in listed if name.startswith(f"{prefix}/")]
