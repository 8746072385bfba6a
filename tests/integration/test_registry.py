"""One contract for the real registry and the fake, and a promotion through the real one."""

from __future__ import annotations

import json
import os
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipeline.admission import Candidate, Release
from pipeline.errors import NoAnswerError, NotAllowedError, StageRefusedError, WorldError
from pipeline.results import PromoteResult
from pipeline.stages.promote import promote
from pipeline.world.oci import OCI_INDEX, OCI_MANIFEST
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import artifact, put_artifact, read_artifact, referrers
from pipeline.world.shelf import Shelf
from tests.fakes_registry import FakeRegistry, gated_record, push_image, push_index
from tests.real_registry import USER, free_host, make_tls, real_registry, write_passwords

ABSENT = f"sha256:{'0' * 64}"
KIND = "application/vnd.example+json"


@pytest.fixture(scope="module")
def real_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def second_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture
def real(real_host: str, tmp_path: Path) -> Iterator[Registry]:
    client = Registry(real_host, docker_config=tmp_path / "none.json")
    yield client
    client.close()


@pytest.fixture(params=["real", "fake"])
def registry(request: pytest.FixtureRequest) -> Registry:
    if request.param == "fake":
        return FakeRegistry()
    client: Registry = request.getfixturevalue("real")
    return client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository prefix of its own for each test, since the real registry is shared."""
    function: str = request.node.originalname
    return function.removeprefix("test_").replace("_", "-")


def test_it_answers_a_ping(registry: Registry) -> None:
    registry.greeting()
    greeting = registry.greeting()
    assert greeting.lets_in
    assert greeting.time is not None
    assert abs((datetime.now(UTC) - greeting.time).total_seconds()) < 60


def test_a_tag_can_be_overwritten_where_nothing_guards_it(registry: Registry, name: str) -> None:
    push_image(registry, name, b"old", tag="2026.11.24.1")
    digest = push_image(registry, name, b"new")
    newer = registry.manifest(name, digest)
    assert newer is not None
    assert registry.can_overwrite(name, "2026.11.24.1", newer)
    assert registry.head(name, "2026.11.24.1") == digest


def test_what_was_never_pushed_is_absent(registry: Registry, name: str) -> None:
    assert registry.manifest(name, "t") is None
    assert registry.manifest(name, ABSENT) is None
    assert registry.head(name, "t") is None
    assert registry.tags(name) == ()
    assert not registry.has_blob(name, ABSENT)
    with pytest.raises(WorldError):
        registry.blob(name, ABSENT)


def test_an_image_is_found_by_tag_and_by_digest(registry: Registry, name: str) -> None:
    digest = push_image(registry, name, b"one", b"two", tag="b-1")
    by_tag, by_digest = registry.manifest(name, "b-1"), registry.manifest(name, digest)
    assert by_tag is not None
    assert by_tag == by_digest
    assert (by_tag.digest, by_tag.media_type) == (digest, OCI_MANIFEST)
    assert registry.head(name, "b-1") == registry.head(name, digest) == digest


def test_blobs_are_stored_and_read_back(registry: Registry, name: str) -> None:
    for data in (b"", b"layer"):
        digest = registry.put_blob(name, data)
        assert registry.has_blob(name, digest)
        assert registry.blob(name, digest) == data


def test_tags_are_listed_in_order_however_many(registry: Registry, name: str) -> None:
    digest = push_image(registry, name, b"one")
    manifest = registry.manifest(name, digest)
    assert manifest is not None
    names = tuple(f"b-{number:03}" for number in range(120))
    for tag in reversed(names):
        registry.put_manifest(name, tag, manifest.body, manifest.media_type)
    assert registry.tags(name) == names


def test_an_image_pushed_by_digest_has_no_tag(registry: Registry, name: str) -> None:
    push_image(registry, name, b"one")
    assert registry.tags(name) == ()


def test_a_blob_is_mounted_from_another_repository(registry: Registry, name: str) -> None:
    digest = registry.put_blob(f"{name}/a", b"layer")
    assert registry.mount_blob(f"{name}/b", digest, f"{name}/a")
    assert registry.blob(f"{name}/b", digest) == b"layer"


def test_a_blob_that_the_source_lacks_is_not_mounted(registry: Registry, name: str) -> None:
    assert not registry.mount_blob(f"{name}/b", ABSENT, f"{name}/a")
    assert not registry.has_blob(f"{name}/b", ABSENT)


def test_a_blob_is_streamed_to_another_repository(registry: Registry, name: str) -> None:
    data = os.urandom(3 << 20)
    digest = registry.put_blob(f"{name}/a", data)
    assert registry.copy_blob(f"{name}/a", f"{name}/b", digest) == len(data)
    assert registry.blob(f"{name}/b", digest) == data


def test_a_missing_blob_cannot_be_streamed(registry: Registry, name: str) -> None:
    with pytest.raises(WorldError):
        registry.copy_blob(f"{name}/a", f"{name}/b", ABSENT)


def test_a_manifest_whose_parts_are_missing_is_not_stored(registry: Registry, name: str) -> None:
    digest = push_image(registry, f"{name}/a", b"one")
    manifest = registry.manifest(f"{name}/a", digest)
    assert manifest is not None
    with pytest.raises(WorldError):
        registry.put_manifest(f"{name}/b", digest, manifest.body, manifest.media_type)
    assert registry.head(f"{name}/b", digest) is None


def test_a_manifest_is_not_stored_under_another_digest(registry: Registry, name: str) -> None:
    digest = push_image(registry, name, b"one")
    manifest = registry.manifest(name, digest)
    assert manifest is not None
    with pytest.raises(WorldError):
        registry.put_manifest(name, ABSENT, manifest.body, manifest.media_type)


def test_sizes_and_config_are_read_from_the_manifest(registry: Registry, name: str) -> None:
    digest = push_image(registry, name, b"one", b"three")
    config = registry.config_digest(name, digest)
    config_bytes = len(registry.blob(name, config))
    assert registry.stored_bytes(name, digest) == len(b"onethree") + config_bytes
    with pytest.raises(WorldError, match="the registry does not have it"):
        registry.stored_bytes(name, ABSENT)


def test_an_index_holds_its_children_and_has_no_config(registry: Registry, name: str) -> None:
    children = (push_image(registry, name, b"one"), push_image(registry, name, b"two"))
    digest = push_index(registry, name, *children)
    index = registry.manifest(name, digest)
    assert index is not None
    assert index.media_type == OCI_INDEX
    assert tuple(child.digest for child in index.content.manifests) == children
    total = sum(registry.stored_bytes(name, child) for child in children)
    assert registry.stored_bytes(name, digest) == total
    with pytest.raises(WorldError, match="it is an index"):
        registry.config_digest(name, digest)


def test_a_document_refers_to_an_image_and_is_read_back(registry: Registry, name: str) -> None:
    digest = push_image(registry, name, b"one", tag="t")
    subject = registry.manifest(name, digest)
    assert subject is not None
    assert referrers(registry, name, digest) == ()
    for content in (b'{"a":1}', b'{"a":2}', b'{"a":2}'):
        put_artifact(registry, name, artifact(KIND, content, subject), content)
    found = referrers(registry, name, digest, KIND)
    assert [read_artifact(registry, name, one.digest) for one in found] == [b'{"a":1}', b'{"a":2}']
    assert referrers(registry, name, digest, "application/other") == ()


def test_a_deleted_manifest_takes_its_tags_along_and_can_be_stored_again(
    registry: Registry, name: str
) -> None:
    digest = push_image(registry, name, b"one", tag="t")
    manifest = registry.manifest(name, digest)
    assert manifest is not None
    assert not registry.delete(name, "t")  # of a tag alone this registry knows nothing
    assert registry.head(name, "t") == digest
    assert registry.delete(name, digest)
    assert (registry.head(name, digest), registry.head(name, "t")) == (None, None)
    assert registry.delete(name, digest)
    registry.put_manifest(name, digest, manifest.body, manifest.media_type)
    assert (registry.head(name, digest), registry.tags(name)) == (digest, ())


def test_repositories_are_listed(registry: Registry, name: str) -> None:
    push_image(registry, f"{name}/b", b"one")
    push_image(registry, f"{name}/a", b"one")
    found = [one for one in registry.repositories() if one.startswith(f"{name}/")]
    assert found == [f"{name}/a", f"{name}/b"]


def docker_login(folder: Path, host: str, password: str) -> Path:
    config = folder / "config.json"
    pair = b64encode(f"{USER}:{password}".encode()).decode()
    config.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return config


def test_a_real_registry_with_passwords_lets_the_right_one_in_alone(tmp_path: Path) -> None:
    passwords = write_passwords(tmp_path / "htpasswd", "U*U")
    with real_registry(tmp_path / "closed", passwords=passwords) as host:
        known = Registry(host, docker_config=docker_login(tmp_path, host, "U*U"))
        digest = push_image(known, "toys/a", b"one", tag="t")
        assert known.head("toys/a", "t") == digest
        assert known.repositories() == ("toys/a",)
        for config in (docker_login(tmp_path, host, "wrong"), tmp_path / "none.json"):
            stranger = Registry(host, docker_config=config)
            stranger.greeting()
            with pytest.raises(NotAllowedError, match="may not read manifest") as caught:
                stranger.head("toys/a", "t")
            assert "wrong" not in str(caught.value)


def test_a_real_registry_over_tls_is_believed_by_its_own_authority_alone(tmp_path: Path) -> None:
    tls = make_tls(tmp_path / "tls")
    with real_registry(tmp_path / "secure", tls=tls) as host:
        certificates = tmp_path / "certs.d"
        (certificates / host).mkdir(parents=True)
        (certificates / host / "ca.crt").write_bytes(tls.authority.read_bytes())
        none = tmp_path / "none.json"
        known = Registry(host, docker_config=none, certificates=certificates)
        data = os.urandom(20 << 20)  # more than one chunk
        digest = known.put_blob("toys/a", data)
        assert known.copy_blob("toys/a", "toys/b", digest) == len(data)
        assert known.blob("toys/b", digest) == data
        other = make_tls(tmp_path / "other")
        (certificates / host / "ca.crt").write_bytes(other.authority.read_bytes())
        with pytest.raises(NoAnswerError, match="SSLError") as caught:
            Registry(host, docker_config=none, certificates=certificates).greeting()
        authority = certificates / host / "ca.crt"
        assert caught.value.hint == f"put the certificate of its authority into {authority}"


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "promotions"


def promoted(
    registry: Registry, target: Registry, name: str, journals: Path, *layers: bytes
) -> tuple[str, PromoteResult]:
    """Push an image to `<name>/staging` and promote it to `<name>/public`; its digest first."""
    staging = f"{name}/staging"
    digest = push_image(registry, staging, *layers)
    candidate = Candidate(
        record=gated_record(digest),
        source=registry,
        source_repository=staging,
        public=f"{name}/public",
    )
    results = promote(
        Release(name="2026.11.1", candidates=[candidate], left_out={}),
        Shelf(registry=target, index_repository=f"{name}/releases", journals=journals),
        today=date(2026, 11, 24),
        say=lambda _: None,
    )
    return digest, results["cpu/smollm2"]


def test_promote_mounts_every_blob_and_does_nothing_the_second_time(
    registry: Registry, name: str, journals: Path
) -> None:
    digest, first = promoted(registry, registry, name, journals, b"one", b"two")
    assert first.reference == f"{registry.host}/{name}/public@{digest}"
    assert (first.digest, first.mounted_blobs, first.copied_bytes) == (digest, 3, 0)
    assert registry.head(f"{name}/public", "2026.11.1") == digest
    _, second = promoted(registry, registry, name, journals, b"one", b"two")
    assert (second.digest, second.mounted_blobs, second.copied_bytes) == (digest, 0, 0)


def test_promote_leaves_a_tag_of_another_digest_alone_and_copies_nothing(
    registry: Registry, name: str, journals: Path
) -> None:
    older = push_image(registry, f"{name}/public", b"older", tag="2026.11.1")
    with pytest.raises(StageRefusedError, match="version tags exist") as caught:
        promoted(registry, registry, name, journals, b"newer")
    assert f"2026.11.1 names {older}" in caught.value.details
    newer = push_image(registry, f"{name}/staging", b"newer")
    assert registry.head(f"{name}/public", "2026.11.1") == older
    assert registry.head(f"{name}/public", newer) is None
    config = registry.config_digest(f"{name}/staging", newer)
    assert not registry.has_blob(f"{name}/public", config)


def test_promote_streams_from_one_real_registry_to_another(
    real: Registry, second_host: str, name: str, tmp_path: Path
) -> None:
    second = Registry(second_host, docker_config=tmp_path / "none.json")
    layer = os.urandom(3 << 20)
    digest, result = promoted(real, second, name, tmp_path / "promotions", layer)
    assert result.copied_bytes == real.stored_bytes(f"{name}/staging", digest)
    assert second.manifest(f"{name}/public", "2026.11.1") == real.manifest(
        f"{name}/staging", digest
    )
    second.close()


def test_a_registry_that_went_away_is_reported_in_less_than_ten_seconds(tmp_path: Path) -> None:
    registry = Registry(free_host(), docker_config=tmp_path / "none.json")
    started = time.monotonic()
    with pytest.raises(WorldError, match="no answer") as caught:
        registry.head("cpu/m", "t")
    assert time.monotonic() - started < 10
    assert caught.value.hint == "is it running? `./bootstrap` starts the local one"
    registry.close()
