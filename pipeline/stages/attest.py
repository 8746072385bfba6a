"""attest: what is said of the image, signed and attached to it. The record is sealed by it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.names import PREFIX
from pipeline.naming import CALVER, release_order
from pipeline.record import Record
from pipeline.results import Attestation, AttestResult, BuildResult
from pipeline.sbom import Inventory, sbom
from pipeline.signatures import SigningKey
from pipeline.statements import (
    LEVEL,
    PREDICATES,
    WHY_LEVEL,
    Kind,
    provenance,
    release_record,
    sealed_sha256,
    statement,
)
from pipeline.world.attachments import Place, attach, sign
from pipeline.world.oci import qualified
from pipeline.world.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A built image: where it is, and under which public name it will be known."""

    registry: Registry
    repository: str
    digest: str
    name: str  # registry and repository


def attest(
    record: Record,
    built: BuildResult,
    subject: Subject,
    inventory: Callable[[], Inventory],
    key: SigningKey | None,
) -> AttestResult:
    """Attach bill of materials, provenance and record, and sign all of it and the image, if there is a key.

    Raises WorldError when the registry lost the image.
    """
    clock = time.monotonic()
    found = inventory()
    read_s = time.monotonic() - clock
    place = place_of(subject.registry, subject.repository, subject.digest)
    labels = image_labels(place)
    created = labels.get(f"{PREFIX}.created", "1970-01-01T00:00:00+00:00")
    predicates: Mapping[Kind, object] = {
        "SBOM": sbom(found, subject.name, subject.digest, created),
        "provenance": provenance(record, built, labels),
        "record": release_record(record),
    }
    clock = time.monotonic()
    attestations = tuple(
        _attested(place, kind, statement(kind, subject.digest, predicate, subject.name), key)
        for kind, predicate in predicates.items()
    )
    if key:
        sign(place, subject.name, key)
    return AttestResult(
        digest=subject.digest,
        record_sha256=sealed_sha256(record),
        attestations=attestations,
        signed_by=key.public.fingerprint if key else None,
        signature_tags=(place.signature_tag, place.statements_tag) if key else (),
        packages=len(found.packages),
        build_level=LEVEL,
        why_level=WHY_LEVEL,
        seconds={
            "read packages": round(read_s, 3),
            "sign and attach": round(time.monotonic() - clock, 3),
        },
    )


def place_of(registry: Registry, repository: str, reference: str) -> Place:
    """Raises WorldError unless there is an image of one platform under this tag or digest."""
    manifest = registry.manifest(repository, reference)
    if manifest is None or manifest.is_index:
        raise WorldError(
            "it is an index of several images" if manifest else "there is no such image",
            where=f"{registry.host}/{qualified(repository, reference)}",
            hint="name the image of one platform by its digest"
            if manifest
            else _what_is_there(registry, repository),
        )
    return Place(registry=registry, repository=repository, image=manifest)


def _what_is_there(registry: Registry, repository: str) -> str:
    tags: tuple[str, ...] = ()
    with suppress(WorldError):  # an account that may read need not be one that may list
        tags = registry.tags(repository)
    newest = sorted(filter(CALVER.match, tags), key=release_order, reverse=True)[:5]
    if newest:
        return f"the newest releases there are {', '.join(newest)}"
    return "look for typing mistakes, or build it again if its registry lost it"


def image_labels(place: Place) -> Mapping[str, str]:
    """As the image itself has them, in its config."""
    config = place.image.content.config
    if config is None:
        return {}
    read = json.loads(place.registry.blob(place.repository, config.digest))
    labels: Mapping[str, str] = (read.get("config") or {}).get("Labels") or {}
    return labels


def _attested(place: Place, kind: Kind, content: bytes, key: SigningKey | None) -> Attestation:
    return Attestation(
        kind=kind,
        predicate_type=PREDICATES[kind],
        sha256=sha256_bytes(content),
        size_bytes=len(content),
        manifest_digest=attach(place, content, PREDICATES[kind], key),
    )
