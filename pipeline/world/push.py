"""An image from the engine into a registry: faster than `docker push` where the engine's store can be read.

`docker push` compresses a layer on one processor. Here all work on it; layers that the parent image has in the registry
are mounted, and what the registry says it has is not sent.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.canonical import canonical, writing
from pipeline.world.engine import Engine, LocalImage
from pipeline.world.engine_store import NotReadableError, StoredImage
from pipeline.world.oci import DOCKER_MANIFEST, Descriptor, digest_of
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import described
from pipeline.world.registry_copy import Route, copy_blob
from pipeline.world.scratch import scratch_folder

CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
# The same bytes in OCI's words, which many bases are pushed in.
CONFIG_TYPES = (CONFIG_TYPE, "application/vnd.oci.image.config.v1+json")
GZIP_TYPES = (LAYER_TYPE, "application/vnd.oci.image.layer.v1.tar+gzip")
LEVEL = 3  # of isal's 0 to 3: 8 times as fast as zlib's 6 on Python packages, and 11 % larger
PIECE_BYTES = 1 << 20
UPLOADS = 3  # at once


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an image lies in a registry: under a tag or digest of a repository."""

    repository: str
    reference: str


def push(
    engine: Engine,
    registry: Registry,
    image: LocalImage,
    place: Place,
    *,
    parent: Place | None,
    on_line: Callable[[str], None],
) -> str:
    """Push an image that the engine has tagged for this place; the digest of its manifest."""
    name = f"{registry.host}/{place.repository}"
    if stored := engine.stored(image):
        try:
            digest = push_stored(registry, stored, place, parent=parent, on_line=on_line)
        except NotReadableError as error:
            on_line(f"the engine pushes, for this process may not read {error}")
        else:
            engine.pull(
                f"{name}@{digest}"
            )  # moves nothing: it learns the digest of the image it has
            return digest
    return engine.push(f"{name}:{place.reference}", on_line=on_line)


def push_stored(
    registry: Registry,
    image: StoredImage,
    place: Place,
    *,
    parent: Place | None,
    on_line: Callable[[str], None],
) -> str:
    """Layers, config, then the manifest; its digest."""
    repository, layers = place.repository, []
    known = _known_layers(registry, parent, repository, image.diff_ids[0])
    with scratch_folder() as folder, _uploads() as uploads:
        sent: set[Future[None]] = set()
        for number, diff_id in enumerate(image.diff_ids):
            _wait(sent, UPLOADS)
            of = f"layer {number + 1} of {len(image.diff_ids)}"
            if diff_id in known:
                on_line(f"{of}: the registry has it")
                source, layer = known[diff_id]
                sent.add(uploads.submit(_mount, registry, source, repository, layer))
            else:
                on_line(f"{of}: compressing")
                path = folder / f"{number}.tar.gz"
                layer = _compressed(image.layer(number), path)
                sent.add(uploads.submit(_send, registry, repository, layer, path))
            layers.append(layer)
        if not registry.has_blob(repository, digest_of(image.config)):
            registry.put_blob(repository, image.config)
        _wait(sent, 0)
    body = canonical(_manifest(image.config, layers))
    return registry.put_manifest(repository, place.reference, body, DOCKER_MANIFEST)


def compress(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Gzip, a member for each MiB, on all processors. Source: RFC 1952, 2.2: members simply follow one another."""
    from isal import isal_zlib  # absent on nodes without network, which push nothing

    processors = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(processors) as pool:
        waiting: deque[Future[bytes]] = deque()
        for piece in _of_equal_size(pieces):
            waiting.append(pool.submit(isal_zlib.compress, piece, LEVEL, 31))
            if len(waiting) > 2 * processors:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()


def _compressed(pieces: Iterable[bytes], path: Path) -> Descriptor:
    seen, size_bytes = hashlib.sha256(), 0
    with writing(path), path.open("wb") as file:
        for member in compress(pieces):
            seen.update(member)
            size_bytes += file.write(member)
    return Descriptor(mediaType=LAYER_TYPE, digest=f"sha256:{seen.hexdigest()}", size=size_bytes)


def _of_equal_size(pieces: Iterable[bytes]) -> Iterator[bytes]:
    held = bytearray()
    for piece in pieces:
        held += piece
        while len(held) >= PIECE_BYTES:
            yield bytes(held[:PIECE_BYTES])
            del held[:PIECE_BYTES]
    if held:
        yield bytes(held)


def _known_layers(
    registry: Registry, parent: Place | None, repository: str, lowest: str
) -> dict[str, tuple[str, Descriptor]]:
    """By the digest of their tar, layers that the registry has, and a repository of each.

    Those of the parent; where that does not give the lowest one, as with a base on another host, those of the images
    that were pushed to this repository before.
    """
    known = _layers(registry, parent) if parent else {}
    for tag in () if lowest in known else registry.tags(repository):
        if lowest in known:
            break
        known |= _layers(registry, Place(repository=repository, reference=tag))
    return known


def _layers(registry: Registry, place: Place) -> dict[str, tuple[str, Descriptor]]:
    manifest = registry.intact_manifest(place.repository, place.reference)
    config = manifest.content.config if manifest else None
    if manifest is None or config is None or config.media_type not in CONFIG_TYPES:
        return {}
    if not registry.has_blob(place.repository, config.digest):
        return {}
    diff_ids = json.loads(registry.blob(place.repository, config.digest))["rootfs"]["diff_ids"]
    pairs = zip(diff_ids, manifest.content.layers, strict=True)
    return {
        diff_id: (place.repository, layer.model_copy(update={"media_type": LAYER_TYPE}))
        for diff_id, layer in pairs
        if layer.media_type in GZIP_TYPES
    }


@contextmanager
def _uploads() -> Iterator[ThreadPoolExecutor]:
    """A few at once. Nobody waits for those that still run when one failed, or a person ends the push."""
    pool = ThreadPoolExecutor(UPLOADS)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _wait(sent: set[Future[None]], most: int) -> None:
    """Until at most so many have not ended, for each is a file. Raises what one of them raised, as soon as it did."""
    while True:
        ended = {one for one in sent if one.done()}
        sent -= ended
        for one in ended:
            one.result()
        if len(sent) <= most:
            return
        wait(sent, return_when=FIRST_COMPLETED)


def _mount(registry: Registry, source: str, target: str, layer: Descriptor) -> None:
    route = Route(
        source=registry, target=registry, source_repository=source, target_repository=target
    )
    copy_blob(route, layer.digest)


def _send(registry: Registry, repository: str, layer: Descriptor, path: Path) -> None:
    if not registry.has_blob(repository, layer.digest):
        registry.put_file(repository, layer.digest, path)
    path.unlink()


def _manifest(config: bytes, layers: Sequence[Descriptor]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": described(CONFIG_TYPE, config),
        "layers": [layer.model_dump(by_alias=True, exclude_none=True) for layer in layers],
    }
