"""The image store of an engine on this machine (overlay2): single layers, byte for byte as the engine made them.

The engine's own API gives whole images only: `docker save` of a model image copies all gigabytes of the runtime below
it for 2 kB. What is read here is compared with the image's own digests, so a store that we misread pushes nothing.
Source of the layer format: vbatts/tar-split, `tar/storage` (entries of type 1 are files, of type 2 what lies between).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import WorldError
from pipeline.world.oci import digest_of

READ_BYTES = 1 << 20
FILE = 1


class NotReadableError(Exception):
    """No fault of anybody: the engine itself can still give the image."""


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    root: Path  # the engine's folder
    config: bytes
    diff_ids: tuple[str, ...]  # digests of the layers as tar, lowest first

    def layer(self, number: int) -> Iterator[bytes]:
        """A layer's tar in pieces. Raises WorldError at its end when that is not what its digest says.

        NotReadableError where a file belongs to another user, as in the store of an engine that runs rootless.
        """
        seen, said = hashlib.sha256(), self.diff_ids[number]
        try:
            for piece in self._pieces(chain_id(self.diff_ids[: number + 1])):
                seen.update(piece)
                yield piece
        except PermissionError as error:
            raise NotReadableError(f"{error.filename} in the engine's store") from error
        except OSError as error:
            raise self._changed(said, f"could not give {error.filename}") from error
        if f"sha256:{seen.hexdigest()}" != said:
            raise self._changed(said, f"gave sha256:{seen.hexdigest()}")

    def _changed(self, said: str, came: str) -> WorldError:
        return WorldError(
            f"reading layer {said}: the engine's store {came}",
            where=str(self.root),
            hint="somebody changed files below the engine's folder: remove the image, build it again",
        )

    def _pieces(self, chain: str) -> Iterator[bytes]:
        layer = self.root / "image/overlay2/layerdb/sha256" / _hex(chain)
        files = self.root / "overlay2" / (layer / "cache-id").read_text() / "diff"
        with gzip.open(layer / "tar-split.json.gz") as lines:
            for entry in map(json.loads, lines):
                if entry["type"] != FILE:
                    yield b64decode(entry["payload"])
                elif entry.get("size"):
                    yield from _read(files / _name(entry))


def stored_image(root: Path, config_digest: str) -> StoredImage | None:
    """None where this process cannot even read its config: an engine elsewhere, another driver, not root."""
    path = root / "image/overlay2/imagedb/content/sha256" / _hex(config_digest)
    try:
        config = path.read_bytes()
    except OSError:
        return None
    if digest_of(config) != config_digest:
        return None
    layers = json.loads(config)["rootfs"]["diff_ids"]
    return StoredImage(root=root, config=config, diff_ids=tuple(layers))


def chain_id(diff_ids: Sequence[str]) -> str:
    """What the engine calls a layer on top of others. Source: OCI image specification, "Layer ChainID"."""
    chain = diff_ids[0]
    for diff_id in diff_ids[1:]:
        chain = digest_of(f"{chain} {diff_id}".encode())
    return chain


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _name(entry: dict[str, str]) -> str:
    """Names that are no UTF-8 are kept as bytes."""
    raw = entry.get("name_raw")
    return b64decode(raw).decode("utf-8", "surrogateescape") if raw else entry["name"]


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece
