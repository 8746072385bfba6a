"""An image from one repository into another, by digest, with all that belongs and refers to it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import WorldError
from pipeline.world.oci import Manifest
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import fallback_tag, list_referrer, referrers
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


def copy_image(route: Route, digest: str) -> Moved:
    """Bring a manifest, what refers to it and its signatures over, untagged, and compare what arrived."""
    moved = _copy(route, digest)
    for descriptor in referrers(route.source, route.source_repository, digest):
        moved += _copy(route, descriptor.digest)
        arrived = present(route.target, route.target_repository, descriptor.digest)
        list_referrer(route.target, route.target_repository, arrived)
    for kind in COSIGN:
        tag = f"{fallback_tag(digest)}.{kind}"
        if found := route.source.head(route.source_repository, tag):
            moved += _copy(route, found, tag)
    return moved


def _copy(route: Route, digest: str, tag: str | None = None) -> Moved:
    """Innermost first; nothing is sent that is there already."""
    reference = tag or digest
    if route.target.head(route.target_repository, reference) == digest:
        return Moved()
    manifest = present(route.source, route.source_repository, digest)
    moved = Moved()
    for child in manifest.content.manifests:
        moved += _copy(route, child.digest)
    for blob in manifest.blobs:
        moved += copy_blob(route, blob.digest)
    body, media_type = manifest.body, manifest.media_type
    route.target.put_manifest(route.target_repository, reference, body, media_type)
    _compare(route, manifest)
    return moved


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
