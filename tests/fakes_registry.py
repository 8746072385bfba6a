"""A registry in memory. `tests/integration/test_registry.py` holds it to the real one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pipeline.canonical import canonical, sha256_bytes
from pipeline.errors import WorldError
from pipeline.record import ImageIdentity, Record, StageRecord, Stages, Status
from pipeline.results import BuildResult, BuiltImage, Frozen, RenderResult
from pipeline.statements import sealed_sha256
from pipeline.world.oci import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    qualified,
)
from pipeline.world.registry import Registry
from pipeline.world.registry_connection import Greeting
from tests.record_parts import attest_result
from tests.records import cpu_about

CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class Repository:
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)


class FakeRegistry(Registry):
    """Has every public method of `Registry`; notes each change in `changes`."""

    keeps_referrers = True

    def __init__(
        self,
        host: str = "registry.test",
        *,
        mounts_blobs: bool = True,
        lists_referrers: bool = False,
        deletes_tags: bool = False,
    ) -> None:
        self.host = host
        self.mounts_blobs = mounts_blobs
        self.lists_referrers = lists_referrers
        self.deletes_tags = deletes_tags
        self.content: dict[str, Repository] = {}
        self.changes: list[str] = []

    def close(self) -> None:
        pass

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> tuple[R, ...]:
        return tuple(map(work, items))

    def greeting(self) -> Greeting:
        return Greeting(lets_in=True, time=datetime.now(UTC))

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        held = self._held(repository)
        return held.manifests.get(held.tags.get(reference, reference))

    def intact_manifest(self, repository: str, reference: str) -> Manifest | None:
        return self.manifest(repository, reference)

    def head(self, repository: str, reference: str) -> str | None:
        found = self.manifest(repository, reference)
        return found.digest if found else None

    def tags(self, repository: str) -> tuple[str, ...]:
        return tuple(sorted(self._held(repository).tags))

    def repositories(self) -> tuple[str, ...]:
        return tuple(sorted(self.content))

    def referring(self, repository: str, digest: str) -> tuple[Descriptor, ...] | None:
        if not self.lists_referrers:
            return None
        return tuple(
            Descriptor(
                mediaType=one.media_type,
                digest=one.digest,
                size=len(one.body),
                artifactType=one.content.artifact_type,
            )
            for one in self._held(repository).manifests.values()
            if (subject := one.content.subject) and subject.digest == digest
        )

    def delete(self, repository: str, reference: str) -> bool:
        held = self._opened(repository)
        if ":" not in reference and not self.deletes_tags:
            return False
        self.changes.append(f"delete {qualified(repository, reference)}")
        held.manifests.pop(reference, None)
        for tag in [tag for tag, digest in held.tags.items() if reference in (tag, digest)]:
            del held.tags[tag]
        return True

    def has_blob(self, repository: str, digest: str) -> bool:
        return digest in self._held(repository).blobs

    def blob(self, repository: str, digest: str) -> bytes:
        try:
            return self._held(repository).blobs[digest]
        except KeyError:
            raise WorldError(f"could not read {digest}", where=self.host) from None

    def save_blob(self, repository: str, digest: str, path: Path) -> None:
        path.write_bytes(self.blob(repository, digest))

    def mount_blob(self, repository: str, digest: str, from_repository: str) -> bool:
        if not self.mounts_blobs or not self.has_blob(from_repository, digest):
            return False
        self.changes.append(f"mount {repository}@{digest}")
        self._opened(repository).blobs[digest] = self.blob(from_repository, digest)
        return True

    def copy_blob(
        self,
        source_repository: str,
        target_repository: str,
        digest: str,
        *,
        target: Registry | None = None,
    ) -> int:
        data = self.blob(source_repository, digest)
        (target or self).put_blob(target_repository, data)
        return len(data)

    def put_blob(self, repository: str, data: bytes) -> str:
        digest = f"sha256:{sha256_bytes(data)}"
        self.changes.append(f"blob {repository}@{digest}")
        self._opened(repository).blobs[digest] = data
        return digest

    def put_file(self, repository: str, digest: str, path: Path) -> None:
        self.put_blob(repository, path.read_bytes())

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        digest = f"sha256:{sha256_bytes(body)}"
        manifest = Manifest(digest=digest, media_type=media_type, body=body)
        self._check(repository, reference, manifest)
        held = self._opened(repository)
        held.manifests[digest] = manifest
        if reference == digest:
            self.changes.append(f"manifest {repository}@{digest}")
        else:
            self.changes.append(f"tag {repository}:{reference}")
            held.tags[reference] = digest
        return digest

    def can_overwrite(self, repository: str, tag: str, manifest: Manifest) -> bool:
        self.put_manifest(repository, tag, manifest.body, manifest.media_type)
        return True

    def _check(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Refuse what a real registry refuses: a wrong digest, a type unknown, parts it lacks."""
        held = self._held(repository)
        known = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)
        children = [child.digest for child in manifest.content.manifests]
        lacks = [blob.digest for blob in manifest.blobs if blob.digest not in held.blobs]
        lacks += [child for child in children if child not in held.manifests]
        wrong = ":" in reference and reference != manifest.digest
        if wrong or lacks or manifest.media_type not in known:
            raise WorldError(
                f"could not store manifest {reference}",
                where=self.host,
                details=f"it lacks {lacks}",
            )

    def _held(self, repository: str) -> Repository:
        return self.content.get(repository, Repository())

    def _opened(self, repository: str) -> Repository:
        return self.content.setdefault(repository, Repository())


def push_image(registry: Registry, repository: str, *layers: bytes, tag: str = "") -> str:
    """Push a hand-made image of the given layers; returns its digest."""
    config = canonical({"architecture": "amd64", "os": "linux", "seed": repository})
    body = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(CONFIG_TYPE, config),
            "layers": [_descriptor(LAYER_TYPE, layer) for layer in layers],
        }
    )
    for data in (config, *layers):
        registry.put_blob(repository, data)
    digest = f"sha256:{sha256_bytes(body)}"
    return registry.put_manifest(repository, tag or digest, body, OCI_MANIFEST)


def push_index(registry: Registry, repository: str, *children: str) -> str:
    """Push an index of manifests that the repository already holds; returns its digest."""
    manifests = [registry.manifest(repository, child) for child in children]
    body = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [_descriptor(OCI_MANIFEST, one.body) for one in manifests if one],
        }
    )
    digest = f"sha256:{sha256_bytes(body)}"
    return registry.put_manifest(repository, digest, body, OCI_INDEX)


def _descriptor(media_type: str, data: bytes) -> dict[str, str | int]:
    digest = f"sha256:{sha256_bytes(data)}"
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def stage(status: Status, result: Frozen | None, **parts: str) -> StageRecord[Any]:
    return StageRecord[Any](
        key="k",
        parts=parts,
        status=status,
        node="n",
        started="2026-11-24T00:00:00Z",
        seconds=1.0,
        result=result,
    )


def build_result(digest: str) -> BuildResult:
    image = BuiltImage(
        layer="model",
        repository="staging",
        key="k",
        config_digest="sha256:c",
        manifest_digest=digest,
        size_bytes=1,
        stored_bytes=1,
        built=True,
        seconds=1.0,
    )
    return BuildResult(images=(image,), builder="docker 20.10")


def bare_record(cell: str, **fields: Any) -> Record:
    """A record with no more than a test needs: of `about` promote reads the waiver alone."""
    chip, _, model = cell.partition("/")
    return Record.model_construct(
        cell=cell,
        chip=chip,
        model=model,
        release="2026.11.1",
        **{"about": cpu_about(), **fields},
    )


def gated_record(digest: str, cell: str = "cpu/smollm2", *, published: bool = True) -> Record:
    """A record whose gates passed for an image; promote reads no result but build's."""
    unread = RenderResult(files=())
    image = ImageIdentity(
        config_digest="sha256:c", manifest_digest=digest, base="b", published=published
    )
    stages = Stages.model_construct(
        render=stage("passed", unread),
        build=stage("passed", build_result(digest)),
        smoke=stage("passed", unread, image="sha256:c"),
        accuracy=stage("passed", unread, image="sha256:c"),
        rehearse=stage("passed", unread, image="sha256:c"),
        attest=stage("passed", attest_result(digest)),
    )
    return sealed(bare_record(cell, image=image, stages=stages))


def sealed(record: Record) -> Record:
    """As attest leaves it: it names the bytes that it attached."""
    assert record.stages.attest is not None
    assert record.stages.attest.result is not None
    result = record.stages.attest.result.model_copy(update={"record_sha256": sealed_sha256(record)})
    return record.with_stage("attest", stage("passed", result))
