"""Hand-made wheels, and a download folder that already holds one."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.canonical import sha256_bytes


def wheel_bytes(
    name: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    with_record: bool = False,
    requires: Sequence[str] = (),
) -> bytes:
    """The same bytes every time, and good enough for pip."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += "".join(f"Requires-Dist: {needed}\n" for needed in requires)
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    whole = {
        **files,
        f"{folder}/METADATA": metadata.encode(),
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/RECORD": b"",
    }
    if with_record:
        whole[f"{folder}/RECORD"] = "".join(map(_record_line, whole.items())).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in sorted(whole.items()):
            archive.writestr(zipfile.ZipInfo(path), content)
    return buffer.getvalue()


def _record_line(entry: tuple[str, bytes]) -> str:
    path, content = entry
    if path.endswith("/RECORD"):
        return f"{path},,\n"
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(content)}\n"


def downloaded(
    folder: Path, name: str, version: str, files: Mapping[str, bytes] | None = None
) -> str:
    """Put a wheel where an earlier download would have left it; its SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    content = wheel_bytes(name, version, files or {})
    path = folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
    path.write_bytes(content)
    (folder / f"{sha256_bytes(content)}.name").write_text(path.name)
    return sha256_bytes(content)
