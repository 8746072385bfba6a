"""Statements and signatures as they are attached to an image, for readers with cosign and without.

Signed ones are written twice: as Sigstore bundles that refer to the image (cosign from 3, Harbor), and under the tags
`sha256-<hex>.sig` and `.att` (cosign 2). What nobody signed refers to the image as it is. None of it touches the image.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.canonical import canonical
from pipeline.signatures import (
    STATEMENT_TYPE,
    NotSignedError,
    PublicKey,
    SigningKey,
    opened_envelope,
    sealed_envelope,
)
from pipeline.world.host_lock import host_lock
from pipeline.world.oci import OCI_MANIFEST, Manifest
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import (
    artifact,
    described,
    fallback_tag,
    put_artifact,
    referrers,
)

BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
PREDICATE = "dev.sigstore.bundle.predicateType"
CONTENT = {"dev.sigstore.bundle.content": "dsse-envelope"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """An image in a registry, by digest."""

    registry: Registry
    repository: str
    image: Manifest

    @property
    def signature_tag(self) -> str:
        return f"{fallback_tag(self.image.digest)}.sig"

    @property
    def statements_tag(self) -> str:
        return f"{fallback_tag(self.image.digest)}.att"


def attach(place: Place, statement: bytes, predicate_type: str, key: SigningKey | None) -> str:
    """One statement; returns the digest of the document that refers to the image."""
    if key is None:
        return _refer(place, STATEMENT_TYPE, statement, {PREDICATE: predicate_type})
    envelope = sealed_envelope(statement, key)
    _tag(
        place,
        place.statements_tag,
        ENVELOPE_TYPE,
        envelope,
        {SIGNATURE: "", "predicateType": predicate_type},
    )
    return _refer(
        place, BUNDLE_TYPE, _bundle(envelope, key), {**CONTENT, PREDICATE: predicate_type}
    )


def sign(place: Place, name: str, key: SigningKey) -> None:
    """The signature of the image itself, in cosign's simple signing format."""
    payload = _payload(name, place.image.digest)
    signature = base64.b64encode(key.sign(payload)).decode()
    _tag(place, place.signature_tag, PAYLOAD_TYPE, payload, {SIGNATURE: signature})


def check_signature(place: Place, key: PublicKey) -> str:
    """The name under which the image was signed. Raises NotSignedError unless the key signed this digest."""
    layers = _layers(place, place.signature_tag)
    if not layers:
        raise NotSignedError("the image has no signature")
    wrong = ""
    for layer in layers:
        payload = place.registry.blob(place.repository, layer["digest"])
        try:
            key.check(base64.b64decode(layer["annotations"][SIGNATURE]), payload)
            signed = json.loads(payload)["critical"]
            digest = signed["image"]["docker-manifest-digest"]
            if digest == place.image.digest:
                return str(signed["identity"]["docker-reference"])
            wrong = f"the signature is of {digest}"
        except (KeyError, ValueError) as error:  # NotSignedError is a ValueError
            wrong = str(error)
    raise NotSignedError(wrong)


@dataclass(frozen=True, kw_only=True)
class Attached:
    """A document that refers to an image and says that it holds a statement of this type."""

    place: Place
    digest: str
    predicate_type: str
    is_signed: bool
    content: str  # digest of its blob

    def statement(self, key: PublicKey | None) -> bytes | None:
        """The statement inside; None if it is for others: another key signed it or none, or without a key any.

        Raises NotSignedError unless the key that it names signed it; WorldError if its bytes changed.
        """
        if self.is_signed is (key is None):
            return None
        content = self.place.registry.blob(self.place.repository, self.content)
        if key is None:
            return content
        try:
            bundle = json.loads(content)
            hint = bundle["verificationMaterial"].get("publicKey", {}).get("hint")
            if hint != key.hint:
                return None
            envelope = canonical(bundle["dsseEnvelope"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NotSignedError("it is no bundle with a signed envelope") from None
        return opened_envelope(envelope, key)


def attached(place: Place) -> tuple[Attached, ...]:
    """Every document that refers to the image and names a predicate type; nothing is checked yet."""
    found = []
    for one in referrers(place.registry, place.repository, place.image.digest):
        if one.artifact_type not in (BUNDLE_TYPE, STATEMENT_TYPE):
            continue
        manifest = place.registry.manifest(place.repository, one.digest)
        if manifest is None or not manifest.content.layers:
            continue
        predicate_type = (json.loads(manifest.body).get("annotations") or {}).get(PREDICATE)
        if predicate_type is not None:
            found.append(
                Attached(
                    place=place,
                    digest=one.digest,
                    predicate_type=predicate_type,
                    is_signed=one.artifact_type == BUNDLE_TYPE,
                    content=manifest.content.layers[0].digest,
                )
            )
    return tuple(found)


def tagged_statements(place: Place, key: PublicKey) -> tuple[bytes, ...]:
    """What this key signed under the tag of cosign 2, beside whom else. Raises WorldError if bytes changed."""
    found = []
    for layer in _layers(place, place.statements_tag):
        envelope = place.registry.blob(place.repository, layer["digest"])
        with suppress(NotSignedError):
            found.append(opened_envelope(envelope, key))
    return tuple(found)


def _refer(place: Place, media_type: str, content: bytes, annotations: Mapping[str, str]) -> str:
    manifest = artifact(media_type, content, place.image, annotations)
    put_artifact(place.registry, place.repository, manifest, content)
    return manifest.digest


def _tag(
    place: Place, tag: str, media_type: str, content: bytes, annotations: Mapping[str, str]
) -> None:
    """One layer more under a tag of cosign's, unless it is there."""
    registry, repository = place.registry, place.repository
    # Two writers would lose one another's layers.
    with host_lock(f"{registry.host}/{repository}:{tag[:24]}{tag[-4:]}"):
        layers = _layers(place, tag)
        layer = {**described(media_type, content), "annotations": dict(annotations)}
        if layer in layers:  # two keys sign the same payload, and differ in the annotation
            return
        config, manifest = _cosign_manifest([*layers, layer])
        registry.put_blob(repository, content)
        registry.put_blob(repository, config)
        registry.put_manifest(repository, tag, manifest, OCI_MANIFEST)


def _layers(place: Place, tag: str) -> list[dict[str, Any]]:
    held = place.registry.manifest(place.repository, tag)
    layers: list[dict[str, Any]] = json.loads(held.body)["layers"] if held else []
    return layers


def _cosign_manifest(layers: Sequence[Mapping[str, Any]]) -> tuple[bytes, bytes]:
    """Config and manifest of an image whose layers are signatures or statements."""
    config = canonical(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
        }
    )
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(CONFIG_TYPE, config),
            "layers": list(layers),
        }
    )
    return config, manifest


def _payload(name: str, digest: str) -> bytes:
    return canonical(
        {
            "critical": {
                "identity": {"docker-reference": name},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )


def _bundle(envelope: bytes, key: SigningKey) -> bytes:
    return canonical(
        {
            "mediaType": BUNDLE_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key.public.hint}},
            "dsseEnvelope": json.loads(envelope),
        }
    )
