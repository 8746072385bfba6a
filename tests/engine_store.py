"""The store of an engine as overlay2 keeps it, made by hand of one tar a layer."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.canonical import canonical
from pipeline.world.engine_store import chain_id
from pipeline.world.oci import digest_of


def tar_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def store_image(root: Path, *layers: bytes) -> str:
    """Put an image of these tars into the store below this folder; its config digest."""
    diff_ids = [digest_of(layer) for layer in layers]
    for number, layer in enumerate(layers, 1):
        _store_layer(root, chain_id(diff_ids[:number]).removeprefix("sha256:"), layer)
    config = canonical({"os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    path = (
        root / "image/overlay2/imagedb/content/sha256" / digest_of(config).removeprefix("sha256:")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(config)
    return digest_of(config)


def _store_layer(root: Path, chain: str, layer: bytes) -> None:
    folder = root / "image/overlay2/layerdb/sha256" / chain
    folder.mkdir(parents=True)
    (folder / "cache-id").write_text(f"cache-{chain[:8]}")
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        members = tar.getmembers()
        for member in members:
            content = tar.extractfile(member)
            path = root / "overlay2" / f"cache-{chain[:8]}" / "diff" / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.read() if content else b"")
    lines = "".join(f"{json.dumps(entry)}\n" for entry in _entries(layer, members))
    (folder / "tar-split.json.gz").write_bytes(gzip.compress(lines.encode()))


def _entries(layer: bytes, members: Sequence[tarfile.TarInfo]) -> Iterator[dict[str, Any]]:
    """Headers and padding as they are, files by name: the two types of tar-split."""
    end = 0
    for member in members:
        yield {"type": 2, "payload": b64encode(layer[end : member.offset_data]).decode()}
        raw = member.name.encode("utf-8", "surrogateescape")
        is_text = raw.isascii()
        named = {"name": member.name} if is_text else {"name_raw": b64encode(raw).decode()}
        yield {"type": 1, **named, "size": member.size}
        end = member.offset_data + member.size
    yield {"type": 2, "payload": b64encode(layer[end:]).decode()}
