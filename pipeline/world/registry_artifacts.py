"""Small documents in a registry: by themselves under a tag, or referring to an image.

Where a registry keeps no list of referrers (docker-registry 2.8), the clients keep one: an index under the tag
`sha256-<hex>`. Source: OCI distribution specification 1.1, "Referrers Tag Schema".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.canonical import canonical
from pipeline.errors import WorldError
from pipeline.world.host_lock import host_lock
from pipeline.world.oci import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, digest_of, qualified
from pipeline.world.registry import Registry

EMPTY, EMPTY_TYPE = b"{}", "application/vnd.oci.empty.v1+json"


def artifact(
    kind: str,
    content: bytes,
    subject: Manifest | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """The manifest of a document of this media type. Pure: its digest is known before it is stored."""
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": described(EMPTY_TYPE, EMPTY),
        "layers": [described(kind, content)],
    }
    if subject is not None:
        body["subject"] = described(subject.media_type, subject.body)
    if annotations:
        body["annotations"] = dict(annotations)
    data = canonical(body)
    return Manifest(digest=digest_of(data), media_type=OCI_MANIFEST, body=data)


def put_artifact(
    registry: Registry, repository: str, manifest: Manifest, content: bytes, tag: str | None = None
) -> None:
    """Store a document with its manifest; one with a subject is listed as referring to it."""
    for data in (EMPTY, content):
        if not registry.has_blob(repository, digest_of(data)):
            registry.put_blob(repository, data)
    reference = tag or manifest.digest
    registry.put_manifest(repository, reference, manifest.body, manifest.media_type)
    if manifest.content.subject is not None:
        list_referrers(registry, repository, manifest.content.subject.digest, (manifest,))


def read_artifact(registry: Registry, repository: str, reference: str) -> bytes | None:
    """The document under a tag or digest; None if absent."""
    manifest = registry.manifest(repository, reference)
    if manifest is None:
        return None
    layers = manifest.content.layers
    if len(layers) != 1:
        raise WorldError(
            f"reading {qualified(repository, reference)}: it holds {len(layers)} documents, expected one",
            where=registry.host,
            hint="somebody else wrote this tag",
        )
    return registry.blob(repository, layers[0].digest)


def referrers(
    registry: Registry, repository: str, digest: str, kind: str | None = None
) -> tuple[Descriptor, ...]:
    """What refers to a manifest, of one media type or all; by the registry's list or by the tag that stands for it."""
    found = registry.referring(repository, digest)
    if found is None:
        tagged = registry.manifest(repository, fallback_tag(digest))
        found = tagged.content.manifests if tagged else ()
    return tuple(one for one in found if kind in (None, one.artifact_type))


def list_referrers(
    registry: Registry, repository: str, subject: str, manifests: Sequence[Manifest]
) -> None:
    """Name stored manifests in the tag of what they refer to, where the registry keeps no list itself."""
    if not manifests or registry.referring(repository, subject) is not None:
        return
    tag = fallback_tag(subject)
    # Two writers would lose one another's entries.
    with host_lock(f"referrers {registry.host}/{repository}"):
        held = registry.manifest(repository, tag)
        index: dict[str, Any] = json.loads(held.body) if held else _EMPTY_INDEX
        listed = {one["digest"] for one in index["manifests"]}
        if new := [_entry(one) for one in manifests if one.digest not in listed]:
            body = canonical({**index, "manifests": [*index["manifests"], *new]})
            registry.put_manifest(repository, tag, body, OCI_INDEX)


def fallback_tag(digest: str) -> str:
    return digest.replace(":", "-")


_EMPTY_INDEX = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}


def _entry(manifest: Manifest) -> dict[str, Any]:
    """As the registry would list it: with its type and annotations."""
    content = json.loads(manifest.body)
    more = {
        "artifactType": content.get("artifactType") or content["config"]["mediaType"],
        "annotations": content.get("annotations"),
    }
    named = {name: value for name, value in more.items() if value}
    return {**described(manifest.media_type, manifest.body), **named}


def described(media_type: str, data: bytes) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}
