"""Build contexts: the same bytes for the same content, and host/ for reaching package indexes."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.world import context
from pipeline.world.context import PROXIES, host_files, main_index, proxy_arguments, write_context

SETTINGS = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_FIND_LINKS", "PIP_INDEX_URL")


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with a CA bundle and no settings for packages or proxies."""
    for name in (*SETTINGS, "UV_DEFAULT_INDEX", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    bundle = tmp_path / "machine.crt"
    bundle.write_text("machine")
    monkeypatch.setattr(context, "CA_BUNDLE", bundle)


def packed(contents: dict[str, bytes | Path]) -> bytes:
    file = io.BytesIO()
    write_context(file, contents)
    return file.read()


def wheel(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def requirement(name: str, *contents: bytes) -> bytes:
    hashes = " \\\n".join(f"    --hash=sha256:{sha256_bytes(content)}" for content in contents)
    return f"{name} \\\n{hashes}\n".encode()


def test_equal_contents_give_equal_bytes_whatever_the_times_and_the_order(tmp_path: Path) -> None:
    files = [wheel(tmp_path, name, b"content") for name in ("old", "new")]
    os.utime(files[0], (1, 1))
    os.utime(files[1], (2_000_000_000, 2_000_000_000))
    first = packed({"Dockerfile": b"FROM scratch\n", "host/file": files[0]})
    assert first == packed({"host/file": files[1], "Dockerfile": b"FROM scratch\n"})


def test_a_context_holds_names_contents_and_programs_of_nobody(tmp_path: Path) -> None:
    program = wheel(tmp_path, "uv", b"program")
    program.chmod(0o700)
    bundle = wheel(tmp_path, "bundle", b"bundle")
    bundle.chmod(0o600)
    context_ = io.BytesIO(packed({"uv": program, "a/crt": bundle, "b": b"text"}))
    with tarfile.open(fileobj=context_) as archive:
        members = [(m.name, m.mode, m.uid, m.gid, m.uname, m.gname, m.mtime) for m in archive]
        contents = [file.read() for member in archive if (file := archive.extractfile(member))]
    assert members == [
        ("a/crt", 0o644, 0, 0, "", "", 0),
        ("b", 0o644, 0, 0, "", "", 0),
        ("uv", 0o755, 0, 0, "", "", 0),
    ]
    assert contents == [b"bundle", b"text", b"program"]


def test_a_machine_without_settings_gives_only_bundle_uv_and_indexes(tmp_path: Path) -> None:
    files = host_files(b"", ["https://wheels.test/cpu"], None)
    assert sorted(files) == ["host/ca.crt", "host/uv", "host/uv.toml", "host/wheels/.keep"]
    assert files["host/ca.crt"] == tmp_path / "machine.crt"
    assert files["host/uv.toml"] == (
        b'system-certs = true\nindex-strategy = "unsafe-best-match"\n'
        b'extra-index-url = ["https://wheels.test/cpu"]\n'
    )
    uv = files["host/uv"]
    assert isinstance(uv, Path)
    assert os.access(uv, os.X_OK)


def test_only_wheels_that_the_lock_names_with_their_hash_are_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = wheel(tmp_path, "flag_gems-5.0.2-py3-none-any.whl", b"right")
    wheel(tmp_path, "flag_scale-0.8.0-py3-none-any.whl", b"another build")
    wheel(tmp_path, "torch-2.11.0-cp311-none-any.whl", b"not locked")
    wheel(tmp_path, "flag_gems-5.0.1-py3-none-any.whl", b"right")
    local = wheel(tmp_path, "torch-2.13.0+cpu-cp311-none-any.whl", b"local version")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    locked = (
        requirement("flag-gems==5.0.2", b"right", b"other platform")
        + requirement("flag-scale==0.8.0", b"the build that was locked")
        + requirement("torch==2.13.0+cpu", b"local version")
    )
    files = host_files(locked, ["https://wheels.test/cpu"], None)
    carried = {name: path for name, path in files.items() if name.endswith(".whl")}
    assert carried == {f"host/wheels/{path.name}": path for path in (right, local)}
    assert files["host/uv.toml"] == (
        b'system-certs = true\nindex-strategy = "unsafe-best-match"\nfind-links = ["/host/wheels"]\n'
    )


def test_a_folder_of_wheels_that_is_not_there_is_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/no/such/folder")
    assert not any(
        name.endswith(".whl") for name in host_files(requirement("a==1", b"a"), [], None)
    )


def test_an_index_of_the_machine_comes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.test/simple")
    assert b'index-url = "https://mirror.test/simple"\n' in bytes_of(
        host_files(b"", [], main_index())
    )
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://uv.test/simple")
    assert b'index-url = "https://uv.test/simple"\n' in bytes_of(host_files(b"", [], main_index()))


def bytes_of(files: dict[str, bytes | Path]) -> bytes:
    settings = files["host/uv.toml"]
    assert isinstance(settings, bytes)
    return settings


def test_the_ca_bundle_is_the_first_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = [tmp_path / name for name in ("requests.crt", "ssl.crt", "pip.crt")]
    names = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")
    for name, bundle in zip(names, bundles, strict=True):
        bundle.write_text(name)
        monkeypatch.setenv(name, str(bundle))
        assert host_files(b"", [], main_index())["host/ca.crt"] == bundle
    bundles[-1].unlink()
    assert host_files(b"", [], main_index())["host/ca.crt"] == tmp_path / "ssl.crt"


def test_a_machine_without_a_ca_bundle_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "CA_BUNDLE", tmp_path / "absent.crt")
    with pytest.raises(WorldError) as caught:
        host_files(b"", [], main_index())
    assert str(caught.value) == (
        f"{tmp_path}/absent.crt: no CA bundle found\n"
        "hint: install ca-certificates or set SSL_CERT_FILE"
    )


def test_proxies_of_the_machine_become_build_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_arguments() == {}
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert proxy_arguments() == {"https_proxy": "http://proxy.test:3128", "NO_PROXY": "127.0.0.1"}


def test_a_build_with_a_proxy_reaches_loopback_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.test:3128")
    monkeypatch.setenv("no_proxy", "mirror.test")
    found = proxy_arguments()
    assert found["no_proxy"] == found["NO_PROXY"] == "mirror.test,127.0.0.1"
