"""Attestations in a real registry, read by the real cosign and oras; and every changed byte is named."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.statements import PREDICATES
from pipeline.world.attachments import attached
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import referrers
from tests.attested import REPOSITORY, Released, new_pair, release_image
from tests.projects import ROOT
from tests.real_registry import real_registry

pytestmark = pytest.mark.integration
EMPTY_ROOT = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}


def program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=ROOT / ".venv/bin")


@pytest.fixture(scope="module", autouse=True)
def readers_tools() -> None:
    if not all(map(program, ("cosign", "oras"))):
        subprocess.run([ROOT / "bootstrap", "--readers-tools"], check=True, timeout=300)


def ran(name: str, *words: str | Path) -> tuple[int, str]:
    found = program(name)
    assert found, f"{name} is not there, although bootstrap unpacked it"
    done = subprocess.run(
        [found, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def released(folder: Path) -> Iterator[Released]:
    with real_registry(folder) as host:
        registry = Registry(host, docker_config=folder / "none.json")
        pair = new_pair()
        (folder / "signing.pub").write_text(pair.public)
        (folder / "wrong.pub").write_text(new_pair().public)
        (folder / "root.json").write_text(json.dumps(EMPTY_ROOT))
        yield release_image(registry, pair)
        registry.close()


def test_cosign_accepts_the_signature_under_our_key_and_no_other(
    released: Released, folder: Path
) -> None:
    words = ("verify", "--insecure-ignore-tlog=true", released.image)
    code, output = ran("cosign", *words, "--key", folder / "signing.pub")
    assert code == 0, output
    assert released.place.image.digest in output
    assert ran("cosign", *words, "--key", folder / "wrong.pub")[0] != 0


@pytest.mark.parametrize("kind", ["cyclonedx", "slsaprovenance1", PREDICATES["record"]])
def test_cosign_accepts_every_attestation_under_our_key_and_no_other(
    released: Released, folder: Path, kind: str
) -> None:
    words = ("verify-attestation", "--insecure-ignore-tlog=true", "--type", kind, released.image)
    code, output = ran("cosign", *words, "--key", folder / "signing.pub")
    assert code == 0, output
    assert ran("cosign", *words, "--key", folder / "wrong.pub")[0] != 0


@pytest.mark.parametrize("kind", ["cyclonedx", "slsaprovenance1", PREDICATES["record"]])
def test_cosign_accepts_the_bundles_that_refer_to_the_image(
    released: Released, folder: Path, kind: str
) -> None:
    words = (
        *("verify-attestation", "--new-bundle-format", "--type", kind, released.image),
        *("--insecure-ignore-tlog=true", "--trusted-root", folder / "root.json"),
    )
    code, output = ran("cosign", *words, "--key", folder / "signing.pub")
    assert code == 0, output
    assert ran("cosign", *words, "--key", folder / "wrong.pub")[0] != 0


def test_cosign_finds_no_attestation_of_another_type(released: Released, folder: Path) -> None:
    words = ("--key", folder / "signing.pub", "--insecure-ignore-tlog=true", "--type", "spdx")
    assert ran("cosign", "verify-attestation", *words, released.image)[0] != 0


def test_oras_lists_what_refers_to_the_image(released: Released) -> None:
    code, output = ran("oras", "discover", "--plain-http", "--format", "json", released.image)
    assert code == 0, output
    listed = {one["digest"] for one in json.loads(output)["manifests"]}
    place = released.place
    assert listed == {
        one.digest for one in referrers(place.registry, place.repository, place.image.digest)
    }
    assert listed == {one.manifest_digest for one in released.result.attestations}


def test_the_image_and_its_index_are_not_touched(released: Released) -> None:
    assert released.place.registry.head(REPOSITORY, released.record.release) == (
        released.place.image.digest
    )


def blob_file(folder: Path, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return folder / "storage/docker/registry/v2/blobs/sha256" / name[:2] / name / "data"


def content_of(released: Released, kind: str) -> str:
    return next(
        one.content
        for one in attached(released.place)
        if one.predicate_type == dict(PREDICATES.items())[kind]  # type: ignore[index]
    )


def layer_of(released: Released, tag: str, number: int) -> str:
    manifest = released.place.registry.manifest(REPOSITORY, tag)
    assert manifest is not None
    return manifest.content.layers[number].digest


@pytest.mark.parametrize(
    "what",
    ["layer", "config", "signature", "SBOM", "provenance", "record", "tags of cosign 2"],
)
def test_a_changed_byte_is_named(released: Released, folder: Path, what: str) -> None:
    assert released.failed() == {}
    place = released.place
    config = place.image.content.config
    assert config is not None
    digest = {
        "layer": lambda: place.image.content.layers[1].digest,
        "config": lambda: config.digest,
        "signature": lambda: layer_of(released, place.signature_tag, 0),
        "tags of cosign 2": lambda: layer_of(released, place.statements_tag, 1),
    }.get(what, lambda: content_of(released, what))()
    path = blob_file(folder, digest)
    before = path.read_bytes()
    middle = len(before) // 2
    path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    try:
        failed = released.failed()
    finally:
        path.write_bytes(before)
    check = "image" if what in ("layer", "config") else what
    assert digest in failed[check], failed
    assert released.failed() == {}


def test_a_tag_that_was_moved_to_another_image_is_named(released: Released) -> None:
    registry, place = released.place.registry, released.place
    other = release_image(registry, new_pair(), b"another layer")
    try:
        assert other.place.image.digest != place.image.digest
        checks = released.verified()
        assert not checks["signature"].passed
        assert not checks["record"].passed
    finally:
        body, kind = place.image.body, place.image.media_type
        registry.put_manifest(REPOSITORY, released.record.release, body, kind)
