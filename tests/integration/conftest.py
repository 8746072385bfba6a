"""One complete release of `cpu/smollm2` on the real engine and registry, shared by the tests that look at it."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.record import Record, RecordStore
from pipeline.world.registry import Registry

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1:5000"
CELL = ("cpu", "smollm2")


@dataclass(frozen=True)
class Ran:
    code: int
    output: str
    seconds: float


@dataclass(frozen=True)
class Checkout:
    """A copy of the project with an `out/` of its own. Images and wheels are shared through registry and share."""

    root: Path

    def run(self, *words: str, environment: dict[str, str] | None = None) -> Ran:
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *words],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(self.root), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
            check=False,
        )
        return Ran(done.returncode, done.stdout, time.monotonic() - started)

    def kill_when(self, seen: Callable[[], bool], *words: str, within_s: float) -> str:
        """Start a command and `kill -9` it as soon as something is seen; what it had printed."""
        log = self.root / "killed.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", *words],
                cwd=self.root,
                env={**os.environ, "PYTHONPATH": str(self.root)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
            deadline = time.monotonic() + within_s
            while not seen():
                assert process.poll() is None, (
                    f"it ended before it could be killed:\n{log.read_text()}"
                )
                assert time.monotonic() < deadline, f"nothing to kill it at:\n{log.read_text()}"
                time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
            process.wait()
        return log.read_text()

    def edit(self, old: str, new: str) -> None:
        path = self.root / "matrix.yaml"
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in matrix.yaml"
        path.write_text(text.replace(old, new))

    def record(self) -> Record:
        return RecordStore(self.root / "out").of_cell(*CELL)[0]

    def folder(self) -> Path:
        return RecordStore(self.root / "out").folder(self.record().release, *CELL)


def run_with_our_programs(
    words: list[str], root: Path, environment: Mapping[str, str], *, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """A command in a checkout, with the programs of our environment first; both outputs in order."""
    path = f"{ROOT}/.venv/bin:{os.environ['PATH']}"
    return subprocess.run(
        words,
        cwd=root,
        env={**os.environ, **environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def copy_of_project(folder: Path) -> Checkout:
    """The files that git tracks or would track, and what earlier runs downloaded and converted."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return Checkout(folder)


def take_over_environment(root: Path) -> None:
    """What ./bootstrap looks for; the programs themselves are found on the path, as those of the tests."""
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/python").symlink_to(sys.executable)
    content = (ROOT / "pyproject.toml").read_bytes()
    stamp = f"{hashlib.sha256(content).hexdigest()}  {root / 'pyproject.toml'}\n"
    (root / ".venv/installed.sha256").write_text(stamp)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A finished release. Never changed by a test: those that change something take `changed`."""
    checkout = copy_of_project(tmp_path_factory.mktemp("released"))
    ran = checkout.run("release", *CELL)
    assert ran.code == 0, ran.output
    (checkout.root / "first-run.txt").write_text(f"{ran.output}\n{ran.seconds:.0f} s\n")
    return checkout


@pytest.fixture
def sdk(request: pytest.FixtureRequest) -> str:
    """Any image with Python stands for a vendor's: the base that the release of the cpu left in the registry."""
    registry, bases = Registry(HOST), "flagrelease/staging/cpu/base"
    if not registry.tags(bases):
        request.getfixturevalue("released")
    digest = registry.head(bases, registry.tags(bases)[0])
    registry.close()
    return f"{HOST}/{bases}@{digest}"


@pytest.fixture
def changed(released: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the released project that a test may change."""
    return copy_of_released(released, tmp_path / "copy")


def copy_of_released(released: Checkout, folder: Path) -> Checkout:
    """Weights are shared by hard links."""
    shutil.copytree(released.root, folder, copy_function=_link_or_copy, symlinks=True)
    return Checkout(folder)


def _link_or_copy(source: str, target: str) -> None:
    if "/out/share/" in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)
