"""An attested image of toy layers with the record, card and release index that belong to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from pipeline.canonical import canonical
from pipeline.names import PREFIX
from pipeline.record import ImageIdentity, Record, ReleaseKey
from pipeline.release_index import INDEX_TYPE, IndexedCell, ReleaseIndex, document, index_tag
from pipeline.results import AttestResult
from pipeline.sbom import Inventory, Package
from pipeline.signatures import PublicKey, SigningKey
from pipeline.smoke_result import Check
from pipeline.stages.attest import Subject, attest, image_labels, place_of
from pipeline.stages.card import card, card_result
from pipeline.stages.verify import Asked, verify
from pipeline.templates import Templates
from pipeline.world.attachments import Place
from pipeline.world.oci import OCI_MANIFEST, digest_of
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import artifact, described, put_artifact
from tests.projects import committed
from tests.record_parts import passed, sha256
from tests.records import cpu_record

REPOSITORY = "toys/flagrelease_cpu_smollm2"
LAYERS = (b"the layer of the runtime", b"the layer of the model")
REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Pair:
    """A key pair as its owner has it, in PEM."""

    private: bytes
    public: str

    @property
    def signing(self) -> SigningKey:
        return SigningKey.read(self.private, None, "a test")

    @property
    def verifying(self) -> PublicKey:
        return PublicKey.read(self.public, "a test")


def new_pair(password: str | None = None) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock)
    return Pair(private=private, public=public.decode())


@cache
def templates() -> Templates:
    return committed().templates


@dataclass(frozen=True, kw_only=True)
class Released:
    place: Place
    record: Record
    result: AttestResult
    pair: Pair | None

    @property
    def image(self) -> str:
        return f"{self.place.registry.host}/{self.place.repository}:{self.record.release}"

    def verified(
        self,
        key: PublicKey | None = None,
        cards: tuple[Path, ...] = (),
        *,
        by_digest: bool = False,
    ) -> dict[str, Check]:
        reference = self.place.image.digest if by_digest else self.record.release
        place = place_of(self.place.registry, self.place.repository, reference)
        checks = verify(
            Asked(
                place=place,
                tag=None if by_digest else self.record.release,
                key=key or (self.pair.verifying if self.pair else None),
                labels=lambda: image_labels(place),
                made=lambda record, withdrawn: card(record, templates(), withdrawn),
                cards=cards,
            )
        )
        return {check.name: check for check in checks}

    def failed(self) -> dict[str, str]:
        return {name: check.seen for name, check in self.verified().items() if not check.passed}


def release_image(registry: Registry, pair: Pair | None, *layers: bytes) -> Released:
    """Push, attest, index and tag it, as the flow does."""
    built = cpu_record().stages.build
    assert built is not None
    assert built.result is not None
    labels = {
        f"{PREFIX}.revision": REVISION,
        f"{PREFIX}.source": "https://example.test/releases",
        f"{PREFIX}.created": "2026-11-24T09:00:00+00:00",
        "io.flagos.release.key": built.result.model.key,
    }
    digest, config_digest = _push(registry, layers or LAYERS, labels)
    record = _record(registry.host, digest, config_digest, pair)
    result = attest_record(registry, record, digest, pair)
    put_index(registry, record, digest, result.record_sha256)
    place = place_of(registry, REPOSITORY, digest)
    registry.put_manifest(REPOSITORY, record.release, place.image.body, OCI_MANIFEST)
    return Released(place=place, record=record, result=result, pair=pair)


def attest_record(
    registry: Registry, record: Record, digest: str, pair: Pair | None
) -> AttestResult:
    """Attach SBOM, provenance and record to an image that is there."""
    assert record.stages.build is not None
    assert record.stages.build.result is not None
    subject = Subject(
        registry=registry,
        repository=REPOSITORY,
        digest=digest,
        name=f"{registry.host}/{REPOSITORY}",
    )
    return attest(
        record,
        record.stages.build.result,
        subject,
        lambda: inventory_of(record),
        pair.signing if pair else None,
    )


def put_index(registry: Registry, record: Record, digest: str, record_sha256: str) -> None:
    cell = IndexedCell(
        cell=record.cell, repository=REPOSITORY, digest=digest, record_sha256=record_sha256
    )
    content = document(ReleaseIndex(release=record.release, cells=(cell,), moves=()))
    manifest = artifact(INDEX_TYPE, content)
    put_artifact(registry, "toys/releases", manifest, content, index_tag(record.release))


def inventory_of(record: Record) -> Inventory:
    """Everything that the smoke test of a record saw, and one Debian package."""
    smoke = record.stages.smoke
    facts = smoke.result.facts if smoke and smoke.result else None
    assert facts is not None
    libc = Package(
        kind="deb",
        name="libc6",
        version="2.36-9+deb12u10",
        architecture="amd64",
        place="/var/lib/dpkg/status",
    )
    python = [
        Package(kind="pypi", name=name, version=version, place=f"/opt/venv/{name}.dist-info")
        for name, version in facts.packages.items()
    ]
    return Inventory(
        system="debian", system_version="12", packages=(libc, *python), unread=("conda",)
    )


@cache
def _record(host: str, digest: str, config_digest: str, pair: Pair | None) -> Record:
    record = cpu_record()
    assert record.stages.build is not None
    assert record.stages.build.result is not None
    *parents, model = record.stages.build.result.images
    model = model.model_copy(update={"manifest_digest": digest, "config_digest": config_digest})
    built = record.stages.build.result.model_copy(update={"images": (*parents, model)})
    parts = {"images/cpu/Dockerfile": sha256("Dockerfile"), "builder": built.builder}
    key = (
        ReleaseKey(path="keys/toys.pub", pem=pair.public, fingerprint=pair.verifying.fingerprint)
        if pair
        else None
    )
    about = record.about.model_copy(
        update={
            "repository": f"{host}/{REPOSITORY}",
            "is_attested": True,
            "release_key": key,
        }
    )
    identity = ImageIdentity.of(built)
    record = record.model_copy(update={"about": about, "image": identity})
    record = record.with_stage("build", passed(built, **parts))
    for stage in ("smoke", "accuracy", "performance"):
        found = record.stages.get(stage)
        assert found is not None
        measured = found.model_copy(update={"parts": {**found.parts, "image": config_digest}})
        record = record.with_stage(stage, measured)
    return record.with_stage("card", passed(card_result(card(record, templates()))))


def _push(registry: Registry, layers: tuple[bytes, ...], labels: dict[str, str]) -> tuple[str, str]:
    config = canonical({"architecture": "amd64", "os": "linux", "config": {"Labels": labels}})
    body = canonical(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described("application/vnd.oci.image.config.v1+json", config),
            "layers": [
                described("application/vnd.oci.image.layer.v1.tar+gzip", layer) for layer in layers
            ],
        }
    )
    for data in (config, *layers):
        registry.put_blob(REPOSITORY, data)
    digest = registry.put_manifest(REPOSITORY, digest_of(body), body, OCI_MANIFEST)
    return digest, digest_of(config)
