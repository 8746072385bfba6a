"""doctor asks a real engine of its own, whose images lie on a disk that is too small, and then one that was stopped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.own_engine import own_engine
from tests.projects import ROOT, toy_project
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.integration
DISK_BYTES = 64 << 20


def doctor(root: Path, engine: str) -> dict[str, str]:
    """What `python -m pipeline doctor` says of the machine: the line of each check, by its name."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor", "loom", "poet"],
        cwd=root,
        env={**os.environ, "DOCKER_HOST": engine, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stdout.splitlines() if ": " in line and line[0] != " "]
    return {line[9:].partition(":")[0]: line for line in lines}


def test_a_full_disk_of_images_and_then_a_stopped_engine_are_told(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    toy_project(tmp_path)
    folder = Path(tmp_path_factory.mktemp("d"))  # short: the path of a socket has a limit
    with small_disk(folder / "data", DISK_BYTES), own_engine(folder) as address:
        fill(folder / "data")
        full = doctor(tmp_path, address)
    stopped = doctor(tmp_path, address)

    assert re.fullmatch(r"ok       engine: Docker \S+ answers, storage driver \w+", full["engine"])
    assert full["disk of images"] == (
        f"wrong    disk of images: 0.0 GiB free in {folder}/data; a build of these needs more: loom 40"
    )
    assert stopped["engine"].startswith(
        f"wrong    engine: {address}: the container engine does not answer"
    )
    assert stopped["disk of images"].startswith("unknown  disk of images: the engine says where")
