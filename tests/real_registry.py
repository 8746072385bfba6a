"""Debian's docker-registry on loopback ports of its own: plain, asking for a password, or over TLS."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = Path("/usr/bin/docker-registry")
# docker-registry takes bcrypt alone. Two are test vectors of crypt_blowfish; the third was made with Perl's crypt.
PASSWORDS = {
    "U*U": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    "planted-registry-password": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.5ceNJISmFTj2Ba.XEU/Q9OSd.EqRjlG",
    "U*U*": "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK",
}
USER = "robot"
CONFIGURATION = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: {deletes}}}{more}}}
http: {{addr: "{host}", secret: toys{tls}}}
{auth}
"""


@dataclass(frozen=True)
class Tls:
    """A server's certificate and the authority that gave it, both made for one test."""

    authority: Path
    certificate: Path
    key: Path


def free_host() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def real_registry(
    folder: Path,
    *,
    passwords: Path | None = None,
    tls: Tls | None = None,
    is_read_only: bool = False,
    deletes: bool = True,
) -> Iterator[str]:
    """Its host, while it runs; what it holds is under `folder`, and stays."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is missing: apt-get install docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    host = free_host()
    config = folder / "config.yml"
    auth = f"auth: {{htpasswd: {{realm: toys, path: {passwords}}}}}" if passwords else ""
    secure = f", tls: {{certificate: {tls.certificate}, key: {tls.key}}}" if tls else ""
    config.write_text(
        CONFIGURATION.format(
            storage=folder / "storage",
            host=host,
            tls=secure,
            auth=auth,
            deletes=str(deletes).lower(),
            more=", maintenance: {readonly: {enabled: true}}" if is_read_only else "",
        )
    )
    log = folder / "log"
    with log.open("ab") as file:
        process = subprocess.Popen([PROGRAM, "serve", config], stdout=file, stderr=file)
    try:
        _wait_until_listening(host, process, log)
        yield host
    finally:
        process.terminate()
        process.wait(timeout=10)


def write_passwords(path: Path, password: str) -> Path:
    path.write_text(f"{USER}:{PASSWORDS[password]}\n")
    return path


def make_tls(folder: Path) -> Tls:
    folder.mkdir(parents=True, exist_ok=True)
    found = Tls(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    authority_key, request, more = folder / "ca.key", folder / "server.csr", folder / "more"
    more.write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        *("req", "-x509", *new_key, "-days", "2", "-subj", "/CN=Toy authority"),
        *("-addext", "keyUsage=critical,keyCertSign"),
        *("-keyout", authority_key, "-out", found.authority),
    )
    _openssl("req", *new_key, "-subj", "/CN=127.0.0.1", "-keyout", found.key, "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-CA", found.authority, "-CAkey", authority_key),
        *("-CAcreateserial", "-days", "2", "-extfile", more, "-out", found.certificate),
    )
    return found


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)


def _wait_until_listening(host: str, process: subprocess.Popen[bytes], log: Path) -> None:
    name, _, port = host.partition(":")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((name, int(port))) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"the registry did not start:\n{log.read_text()}")
