"""promote: bring a tested image to the public repository, by digest, its tag last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import StageRefusedError, WorldError
from pipeline.record import Record, StageName
from pipeline.results import PromoteResult
from pipeline.world.oci import Manifest
from pipeline.world.registry import Registry

GATES: tuple[StageName, ...] = ("render", "build", "smoke", "accuracy")
MEASURED: tuple[StageName, ...] = ("smoke", "accuracy", "rehearse")


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


def promote(
    record: Record,
    *,
    source: Registry,
    target: Registry,
    source_repository: str,
    target_repository: str,
    tag: str,
) -> PromoteResult:
    """Copy the image of a record whose gates all passed; a tag that exists is never moved."""
    digest = promotable_digest(record)
    route = Route(
        source=source,
        target=target,
        source_repository=source_repository,
        target_repository=target_repository,
    )
    moved = Moved()
    if not _tag_is_there(record, route, tag, digest):
        moved = _copy(route, digest)
        # Layers take minutes to hours; somebody may have taken the tag meanwhile.
        if not _tag_is_there(record, route, tag, digest):
            _put_tag(route, tag, digest)
    return PromoteResult(
        reference=f"{target.host}/{target_repository}@{digest}",
        tag=tag,
        digest=digest,
        copied_bytes=moved.copied_bytes,
        mounted_blobs=moved.mounted_blobs,
    )


def promotable_digest(record: Record) -> str:
    """The manifest digest that every gate passed for; refuses with all reasons otherwise."""
    digest = record.image.manifest_digest if record.image else None
    reasons = tuple(_reasons_against(record, digest))
    if reasons or digest is None:
        raise StageRefusedError(
            f"promoting release {record.release}: a gate did not pass for exactly this image",
            where=record.cell,
            details="\n".join(reasons),
            hint=f"run `nox -s release -- {record.chip} {record.model}` until these stages pass",
        )
    return digest


def _reasons_against(record: Record, digest: str | None) -> Iterator[str]:
    yield from record.not_passed(GATES)
    rehearse = record.stages.rehearse
    if rehearse is None or rehearse.status not in ("passed", "not_applicable"):
        yield f"rehearse: {rehearse.status if rehearse else 'not_run'}"
    if record.image is not None and not record.image.published:
        yield "image: built from a base that cannot be pulled (published: false)"
    if record.image is None or digest is None:
        yield "image: no registry has given it a manifest digest"
        return
    built = _built_digests(record)
    if digest not in built:
        yield f"image: {digest}, but build made {', '.join(built) or 'none'}"
    # A new build leaves the results of the old image in the record until they are measured anew.
    for name in MEASURED:
        stage = record.stages.get(name)
        measured = stage.parts.get("image", "none") if stage else None
        if measured not in (None, digest, record.image.config_digest):
            yield f"{name}: passed for image {measured}, this one is {record.image.config_digest}"


def _built_digests(record: Record) -> tuple[str, ...]:
    build = record.stages.build
    images = build.result.images if build and build.result else ()
    return tuple(str(image.manifest_digest) for image in images if image.layer == "model")


def _tag_is_there(record: Record, route: Route, tag: str, digest: str) -> bool:
    """True if the tag names this digest already, False if it is free; refuses any other digest."""
    found = route.target.head(route.target_repository, tag)
    if found in (None, digest):
        return found is not None
    raise StageRefusedError(
        f"promoting {digest}: the tag {tag} exists and names {found}",
        where=f"{route.target.host}/{route.target_repository}",
        details=f"release {record.release} of {record.cell}",
        hint="published tags do not move; release under a new name",
    )


def _copy(route: Route, digest: str) -> Moved:
    """Bring a manifest and all it names over, innermost first, and compare what arrived."""
    manifest = _read(route.source, route.source_repository, digest)
    moved = Moved()
    for child in manifest.content.manifests:
        moved += _copy(route, child.digest)
    for blob in manifest.blobs:
        moved += _copy_blob(route, blob.digest)
    route.target.put_manifest(route.target_repository, digest, manifest.body, manifest.media_type)
    arrived = _read(route.target, route.target_repository, digest)
    if arrived != manifest:
        raise WorldError(
            f"promoting {digest}: the manifest that was read back is not the one that was sent",
            where=f"{route.target.host}/{route.target_repository}",
            details=f"sent {manifest.media_type}, {len(manifest.body)} bytes;"
            f" read {arrived.media_type}, {len(arrived.body)} bytes",
            hint="the registry or a proxy on the way changes manifests; no tag was written",
        )
    return moved


def _copy_blob(route: Route, digest: str) -> Moved:
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


def _put_tag(route: Route, tag: str, digest: str) -> None:
    manifest = _read(route.target, route.target_repository, digest)
    route.target.put_manifest(route.target_repository, tag, manifest.body, manifest.media_type)
    found = route.target.head(route.target_repository, tag)
    if found != digest:
        raise WorldError(
            f"promoting {digest}: the tag {tag} was written and now names {found or 'nothing'}",
            where=f"{route.target.host}/{route.target_repository}",
            hint="another release may be writing this tag; look who, then promote again",
        )


def _read(registry: Registry, repository: str, digest: str) -> Manifest:
    manifest = registry.manifest(repository, digest)
    if manifest is None:
        raise WorldError(
            f"promoting {digest}: the manifest is not in {repository}",
            where=registry.host,
            hint="its repository was cleaned up; build the image again",
        )
    return manifest
