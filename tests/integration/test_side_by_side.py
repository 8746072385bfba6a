"""Cells side by side on the real engine and a real registry: one build a key, and nothing left after an interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest

from pipeline.lock import lock_bytes
from pipeline.record import RecordStore, read_record
from pipeline.results import BuiltImage
from pipeline.world.registry import Registry
from tests.finished import RELEASE, write_project
from tests.integration.test_sdk_image import BEFORE, CHIP, locked
from tests.projects import ROOT, one_cell, toy_project
from tests.real_registry import real_registry

pytestmark = pytest.mark.integration
HOST, BASES = "127.0.0.1:5000", "flagrelease/staging/cpu/base"
MODELS = ("critic", "poet")
EXCLUDED = """\
  exclude:
    - {cell: loom/critic, why: no loom is that large}
"""


@pytest.fixture
def base(request: pytest.FixtureRequest) -> str:
    """Any image with Python: what the release of the cpu left in the registry."""
    registry = Registry(HOST)
    if not registry.tags(BASES):
        request.getfixturevalue("released")
    return f"{HOST}/{BASES}@{registry.head(BASES, registry.tags(BASES)[0])}"


def checkout(folder: Path, base: str, host: str) -> Path:
    """Two cells on one chip, so that they share a runtime image."""
    folder.mkdir()
    project = toy_project(
        folder,
        ("base: mirror.test/loom/base:1", f"base: {base}"),
        ("registry: registry.test/toys", f"registry: {host}/side-by-side"),
        (BEFORE, CHIP),
        ("arch: arm64", "arch: amd64"),
        (EXCLUDED, ""),
    )
    (folder / "images/serving/hook.py").write_text("")
    lock, files = locked(one_cell(project, "loom", "poet"), base, folder / "wheels")
    (folder / "matrix.lock").write_bytes(lock_bytes(lock))
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def begun(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PIP_FIND_LINKS": str(folder / "wheels")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def images(folder: Path) -> list[BuiltImage]:
    found = []
    for model in MODELS:
        path = RecordStore(folder / "out").folder(RELEASE, "loom", model) / "record.json"
        build = read_record(path).stages.build
        assert build is not None
        assert build.status == "passed", build.error
        assert build.result is not None
        found += [image for image in build.result.images if image.layer != "base"]
    return found


@contextmanager
def images_removed_of(host: str) -> Iterator[None]:
    """Afterwards the engine has no tag of this registry, which is gone by then."""
    client = docker.from_env()
    try:
        yield
    finally:
        for image in client.images.list(filters={"reference": f"{host}/*/*/*/*"}):
            for tag in image.tags:
                if tag.startswith(f"{host}/"):
                    client.images.remove(tag)
        client.close()


def test_two_cells_in_two_processes_build_and_push_every_key_once(
    base: str, tmp_path: Path
) -> None:
    with real_registry(tmp_path / "registry") as host, images_removed_of(host):
        folders = [checkout(tmp_path / name, base, host) for name in ("one", "two")]
        words = ("pipeline", "build", "loom", "*", "--release", RELEASE, "--jobs", "build=2")
        processes = [begun(folder, *words) for folder in folders]
        told = [process.communicate(timeout=500)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(told)
        known = [image for folder in folders for image in images(folder)]
        registry = Registry(host)
        for key in {image.key for image in known}:
            of_key = [image for image in known if image.key == key]
            (made,) = [image for image in of_key if image.built]
            assert {image.manifest_digest for image in of_key} == {made.manifest_digest}
            assert registry.head(made.repository, f"b-{key}") == made.manifest_digest
        registry.close()
    # One runtime for four builds, and one image of each model for two.
    assert len({image.key for image in known if image.layer == "runtime"}) == 1
    assert len({image.key for image in known if image.layer == "model"}) == len(MODELS)
    assert "waiting for process" in "\n".join(told)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_cells_and_leaves_no_container_program_or_record(
    base: str, tmp_path: Path, sign: signal.Signals
) -> None:
    (tmp_path / "project").mkdir()
    with real_registry(tmp_path / "registry") as host:
        write_project(tmp_path / "project", host)
        process = begun(tmp_path / "project", "tests.held", base)
        try:
            deadline = time.monotonic() + 120
            while len(held(process.pid)) < 2 or not programs(process.pid):
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline, "the cells did not get there"
                time.sleep(0.2)
            time.sleep(0.5)
            process.send_signal(sign)
            sent = time.monotonic()
            told, _ = process.communicate(timeout=60)
            seconds = time.monotonic() - sent
        finally:
            process.kill()
    assert process.returncode == 130, told
    assert seconds < 6, "the thread that waits for nothing that can be ended was waited for"
    assert "interrupted; run the same command again to go on" in told
    assert (held(process.pid), programs(process.pid)) == ([], [])
    for model in ("model0", "model1"):
        record = RecordStore(tmp_path / "project/out").read(RELEASE, "chip0", model)
        assert record is not None
        assert record.stages.card is not None
        assert record.stages.attest is None


def held(pid: int) -> list[str]:
    """Containers of this process, running or not."""
    listed = subprocess.run(
        [
            "docker",
            "ps",
            "--all",
            "--filter",
            f"name=flagrelease-held-.*-{pid}$",
            "--format",
            "{{.Names}}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return listed.stdout.split()


def programs(pid: int) -> list[str]:
    """What the second cell of this process waits for."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"300.{pid}".encode() in (folder / "cmdline").read_bytes():
                found.append(folder.name)
    return found
