"""Build contexts: a tar with fixed owners, modes and times, and host/ for reaching indexes."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline.canonical import sha256_file
from pipeline.errors import WorldError

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
PIP_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def write_context(file: IO[bytes], contents: Mapping[str, bytes | Path]) -> None:
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            if isinstance(content, Path):
                member.size = content.stat().st_size
                member.mode = 0o755 if os.access(content, os.X_OK) else 0o644
                with content.open("rb") as source:
                    archive.addfile(member, source)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    file.seek(0)


def host_files(
    requirements: bytes, indexes: Sequence[str], main: str | None
) -> dict[str, bytes | Path]:
    """host/ of a builder stage: CA bundle, uv and its settings, and the local wheels that the lock names.

    `main` is the package index, `indexes` those beside it, without a secret: the engine keeps this folder, untagged,
    after the build.
    None of it enters a build key: the lock's hashes say what gets installed, wherever it comes from.
    """
    wheels = _local_wheels(requirements)
    return {
        "host/ca.crt": ca_bundle(),
        "host/uv": _uv(),
        "host/uv.toml": _uv_settings(indexes, main, offline_wheels=bool(wheels)).encode(),
        "host/wheels/.keep": b"",
        **{f"host/wheels/{wheel.name}": wheel for wheel in wheels},
    }


def proxy_arguments() -> dict[str, str]:
    """Proxy settings of this machine; Docker keeps these build arguments out of the image's history."""
    found = {name: os.environ[name] for name in PROXIES if name in os.environ}
    direct = found.get("no_proxy") or found.get("NO_PROXY") or ""
    if found and "127.0.0.1" not in direct.split(","):  # where the relay of a package index is
        found["no_proxy"] = found["NO_PROXY"] = ",".join(filter(None, [direct, "127.0.0.1"]))
    return found


def index_settings() -> dict[str, str]:
    """How this machine reaches a package index, for a container that is to reach it too."""
    names = (*PROXIES, *PIP_SETTINGS)
    return {name: os.environ[name] for name in names if name in os.environ}


def ca_bundle() -> Path:
    for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        path = Path(os.environ.get(name, ""))
        if path.is_file():
            return path
    if not CA_BUNDLE.exists():
        raise WorldError(
            "no CA bundle found",
            where=str(CA_BUNDLE),
            hint="install ca-certificates or set SSL_CERT_FILE",
        )
    return CA_BUNDLE


def _uv() -> Path:
    from uv import find_uv_bin

    return Path(find_uv_bin())


def main_index() -> str | None:
    """Where this machine gets packages, if not from the public index; may hold a password."""
    return os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL") or None


def extra_indexes() -> tuple[str, ...]:
    """Where this machine looks beside; may hold passwords. Folders are of this machine alone."""
    words = (os.environ.get("UV_INDEX") or os.environ.get("PIP_EXTRA_INDEX_URL") or "").split()
    named = (re.sub(r"^[\w.-]+=", "", word) for word in words)  # uv may give an index a name
    return tuple(address for address in named if address.startswith(("http://", "https://")))


def _uv_settings(indexes: Sequence[str], main: str | None, *, offline_wheels: bool) -> str:
    lines = ["system-certs = true", 'index-strategy = "unsafe-best-match"']
    if main:
        lines.append(f'index-url = "{main}"')
    if offline_wheels:
        lines.append('find-links = ["/host/wheels"]')
    elif indexes:
        lines.append(f"extra-index-url = {json.dumps(list(indexes))}")
    return "\n".join(lines) + "\n"


def _local_wheels(requirements: bytes) -> list[Path]:
    folder = os.environ.get("PIP_FIND_LINKS")
    if not folder or not Path(folder).is_dir():
        return []
    text = requirements.decode()
    versions = set(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", text, flags=re.MULTILINE))
    wanted = {(_normal(name), version) for name, version in versions}
    return [
        wheel
        for wheel in sorted(Path(folder).glob("*.whl"))
        if (_normal(wheel.name.split("-")[0]), wheel.name.split("-")[1]) in wanted
        and sha256_file(wheel) in text
    ]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
