"""Our push through faults in front of a real registry: a cut blob, a refusal, and a registry that stays down."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import NoAnswerError
from pipeline.world.engine_store import StoredImage, stored_image
from pipeline.world.push import Place, push_stored
from pipeline.world.registry import Registry
from pipeline.world.registry_blobs import CHUNK_BYTES
from pipeline.world.registry_copy import Copy, Route, copy_images
from pipeline.world.tag_moves import present
from tests.engine_store import store_image, tar_of
from tests.fault_proxy import Answer, Asked, Cut, Fault, Proxy, fault_proxy
from tests.real_registry import real_registry

AT = Place(repository="toys/runtime", reference="b-1")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[Proxy]:
    with real_registry(tmp_path / "registry") as host, fault_proxy(host) as found:
        yield found


@pytest.fixture
def registry(proxy: Proxy, tmp_path: Path) -> Iterator[Registry]:
    client = Registry(proxy.host, docker_config=tmp_path / "none.json", sleep=lambda _: None)
    yield client
    client.close()


@pytest.fixture(scope="module")
def layers() -> tuple[bytes, ...]:
    """The upper one is larger than a chunk of an upload."""
    return tar_of({"a": b"lower"}), tar_of({"b": os.urandom(CHUNK_BYTES + (2 << 20))})


@pytest.fixture
def image(tmp_path: Path, layers: tuple[bytes, ...]) -> StoredImage:
    found = stored_image(tmp_path / "store", store_image(tmp_path / "store", *layers))
    assert found is not None
    return found


def cut_short(storage: Path) -> int:
    """Every link of blobs and manifests emptied, as docker-registry leaves the one it wrote when its disk was full."""
    links = [path for path in storage.rglob("link") if "tags" not in path.parts]
    for link in links:
        link.write_bytes(b"")
    return len(links)


def pushed(registry: Registry, image: StoredImage) -> str:
    return push_stored(registry, image, AT, parent=None, on_line=lambda _: None)


def held(registry: Registry) -> list[bytes]:
    manifest = registry.manifest(AT.repository, AT.reference)
    assert manifest is not None
    blobs = [registry.blob(AT.repository, layer.digest) for layer in manifest.content.layers]
    return list(map(gzip.decompress, blobs))


@pytest.mark.parametrize("fault", [Cut(), Answer(503), Answer(429, (("Retry-After", "0"),))])
def test_a_chunk_that_fails_is_sent_again(
    proxy: Proxy, registry: Registry, image: StoredImage, layers: tuple[bytes, ...], fault: Fault
) -> None:
    failed: list[Asked] = []

    def once(asked: Asked) -> Fault:
        if failed or not (asked.is_blob_body and asked.size_bytes > 1 << 20):
            return None
        failed.append(asked)
        return fault

    proxy.rule = once
    digest = pushed(registry, image)
    assert len(failed) == 1
    assert held(registry) == list(layers)
    assert registry.head(AT.repository, AT.reference) == digest


def test_a_push_that_gave_up_leaves_no_tag_and_the_next_sends_only_the_rest(
    proxy: Proxy, registry: Registry, image: StoredImage, layers: tuple[bytes, ...]
) -> None:
    proxy.rule = lambda asked: Answer(500) if asked.size_bytes > CHUNK_BYTES // 2 else None
    with pytest.raises(NoAnswerError):
        pushed(registry, image)
    assert registry.head(AT.repository, AT.reference) is None

    proxy.rule, before = lambda _: None, len(proxy.seen)
    pushed(registry, image)
    sent = [asked.size_bytes for asked in proxy.seen[before:] if asked.is_blob_body]
    assert len(sent) == 2  # the chunks of the upper layer
    assert sum(sent) > CHUNK_BYTES
    assert held(registry) == list(layers)


def test_entries_that_a_full_disk_cut_short_are_pushed_again(
    tmp_path: Path, registry: Registry, image: StoredImage
) -> None:
    pushed(registry, image)
    assert cut_short(tmp_path / "registry") == 4  # two layers, config, manifest
    with pytest.raises(NoAnswerError, match="it answered 500"):
        registry.manifest(AT.repository, AT.reference)
    pushed(registry, image)
    assert len(held(registry)) == 2


def test_entries_that_a_full_disk_cut_short_are_copied_again(
    tmp_path: Path, registry: Registry, image: StoredImage
) -> None:
    digest = pushed(registry, image)
    with real_registry(tmp_path / "public") as host:
        public = Registry(host, docker_config=tmp_path / "none.json", sleep=lambda _: None)
        route = Route(
            source=registry,
            target=public,
            source_repository=AT.repository,
            target_repository=AT.repository,
        )
        copy_images(public, [Copy(route=route, digest=digest)])
        assert cut_short(tmp_path / "public") == 4
        copy_images(public, [Copy(route=route, digest=digest)])
        assert public.manifest(AT.repository, digest) == registry.manifest(AT.repository, digest)
        assert all(
            public.has_blob(AT.repository, blob.digest)
            for blob in present(public, AT.repository, digest).blobs
        )
        public.close()
