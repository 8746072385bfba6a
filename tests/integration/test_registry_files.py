"""Images written as a registry's files are served by a real docker-registry as they were."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import WorldError
from pipeline.world.registry import Registry
from pipeline.world.registry_files import registry_files
from tests.fakes_registry import FakeRegistry, push_image
from tests.fakes_server import free_port

RUNTIME, MODEL = "flagrelease/staging/toy/runtime", "flagrelease/staging/toy/poet"


@contextmanager
def served(root: Path) -> Iterator[Registry]:
    program = shutil.which("docker-registry")
    assert program, "docker-registry is not installed: ./bootstrap installs it"
    host = f"127.0.0.1:{free_port()}"
    settings = root.with_suffix(".yml")
    settings.write_text(
        "version: 0.1\nlog: {level: warn}\n"
        f"storage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    with subprocess.Popen([program, "serve", settings], stderr=subprocess.DEVNULL) as process:
        registry = Registry(host)
        try:
            deadline = time.monotonic() + 10
            while True:
                try:
                    registry.greeting()
                    break
                except WorldError:
                    assert time.monotonic() < deadline, "docker-registry did not start"
                    time.sleep(0.05)
            yield registry
        finally:
            process.terminate()


@pytest.mark.integration
def test_a_real_registry_serves_the_files_as_the_images_they_were(tmp_path: Path) -> None:
    source = FakeRegistry()
    runtime = push_image(source, RUNTIME, b"runtime", tag="b-1")
    model = push_image(source, MODEL, b"runtime", b"model", tag="b-2")
    tagged = [(RUNTIME, "b-1"), (MODEL, "b-2")]
    for name, content in registry_files(source, tagged, tmp_path / "cache"):
        path = tmp_path / "registry" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    with served(tmp_path / "registry") as there:
        assert there.head(RUNTIME, "b-1") == runtime
        assert there.head(MODEL, "b-2") == there.head(MODEL, model) == model
        assert there.config_digest(MODEL, model) == source.config_digest(MODEL, model)
        found = there.manifest(MODEL, model)
        assert found is not None
        for blob in found.blobs:
            assert there.blob(MODEL, blob.digest) == source.blob(MODEL, blob.digest)
        there.close()
