"""An image from one repository into another, by digest, with all that belongs and refers to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import WorldError
from pipeline.world.oci import Manifest
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import fallback_tag, list_referrers, referrers
from pipeline.world.tag_moves import present

COSIGN = ("sig", "att")  # tags of its older scheme: sha256-<hex>.sig


@dataclass(frozen=True, kw_only=True)
class Route:
    """From where to where an image travels."""

    source: Registry
    target: Registry
    source_repository: str
    target_repository: str

    @property
    def is_within_one_registry(self) -> bool:
        return self.source.host == self.target.host


@dataclass(frozen=True, kw_only=True)
class Moved:
    mounted_blobs: int = 0
    copied_bytes: int = 0

    def __add__(self, other: Moved) -> Moved:
        return Moved(
            mounted_blobs=self.mounted_blobs + other.mounted_blobs,
            copied_bytes=self.copied_bytes + other.copied_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class Copy:
    """An image on its way, with all that refers to it."""

    route: Route
    digest: str


@dataclass(frozen=True, kw_only=True)
class _Item:
    """A manifest of a copy, and the tag or digest under which it is to be."""

    manifest: Manifest
    reference: str
    is_there: bool


def copy_images(
    target: Registry, copies: Sequence[Copy]
) -> tuple[tuple[Moved, ...], dict[str, Manifest]]:
    """Bring images to `target`, untagged, with their signatures and what refers to them, and compare what arrived.

    All blobs first, side by side, then manifests; nothing is sent that is there already. Gives what was moved for each,
    and the manifests of the images by digest.
    """
    items = target.each(lambda copy: tuple(_items(copy)), copies)
    missing = [
        (number, digest)
        for number, of_copy in enumerate(items)
        for digest in dict.fromkeys(
            blob.digest for item in of_copy if not item.is_there for blob in item.manifest.blobs
        )
    ]
    brought = target.each(lambda blob: copy_blob(copies[blob[0]].route, blob[1]), missing)
    target.each(lambda pair: _store(*pair), zip(copies, items, strict=True))
    moved = [Moved()] * len(copies)
    for (number, _), of_blob in zip(missing, brought, strict=True):
        moved[number] += of_blob
    manifests = {one.manifest.digest: one.manifest for of_copy in items for one in of_copy}
    return tuple(moved), {copy.digest: manifests[copy.digest] for copy in copies}


def _items(copy: Copy) -> Iterator[_Item]:
    """All of a copy, in the order in which it can be stored."""
    route, digest = copy.route, copy.digest
    yield from _manifests(route, digest)
    for descriptor in referrers(route.source, route.source_repository, digest):
        yield from _manifests(route, descriptor.digest)
    for kind in COSIGN:
        tag = f"{fallback_tag(digest)}.{kind}"
        if found := route.source.manifest(route.source_repository, tag):
            is_there = route.target.head(route.target_repository, tag) == found.digest
            yield _Item(manifest=found, reference=tag, is_there=is_there)


def _manifests(route: Route, digest: str) -> Iterator[_Item]:
    """Innermost first."""
    if there := route.target.intact_manifest(route.target_repository, digest):
        yield _Item(manifest=there, reference=digest, is_there=True)
        return
    manifest = present(route.source, route.source_repository, digest)
    for child in manifest.content.manifests:
        yield from _manifests(route, child.digest)
    yield _Item(manifest=manifest, reference=digest, is_there=False)


def _store(copy: Copy, items: Sequence[_Item]) -> None:
    route = copy.route
    for item in items:
        if not item.is_there:
            body, media_type = item.manifest.body, item.manifest.media_type
            route.target.put_manifest(route.target_repository, item.reference, body, media_type)
            _compare(route, item.manifest)
    referring = [
        item.manifest
        for item in items
        if (subject := item.manifest.content.subject) and subject.digest == copy.digest
    ]
    list_referrers(route.target, route.target_repository, copy.digest, referring)


def _compare(route: Route, sent: Manifest) -> None:
    arrived = present(route.target, route.target_repository, sent.digest)
    if arrived != sent:
        raise WorldError(
            f"copying {sent.digest}: the manifest that was read back is not the one that was sent",
            where=f"{route.target.host}/{route.target_repository}",
            details=f"sent {sent.media_type}, {len(sent.body)} bytes;"
            f" read {arrived.media_type}, {len(arrived.body)} bytes",
            hint="the registry or a proxy on the way changes manifests; no tag was written",
        )


def copy_blob(route: Route, digest: str) -> Moved:
    """Mounted where the registry has it in the other repository; sent only where it is not there yet."""
    if route.is_within_one_registry and route.target.mount_blob(
        route.target_repository, digest, route.source_repository
    ):
        return Moved(mounted_blobs=1)
    if route.target.has_blob(route.target_repository, digest):
        return Moved()
    sent_bytes = route.source.copy_blob(
        route.source_repository, route.target_repository, digest, target=route.target
    )
    return Moved(copied_bytes=sent_bytes)
