"""Promotions of six toy images through faults: a place where they happen, and what public tags say afterwards."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.world.journal import open_journals
from pipeline.world.registry import Registry
from tests import promoter
from tests.fakes_registry import push_image
from tests.projects import ROOT
from tests.promoter import CELLS, public_of, staging_of

OLD, NEW = "2026.11.1", "2026.11.2"
State = Literal["old", "new", "mixed"]


@dataclass(frozen=True)
class Ran:
    code: int
    output: str
    seconds: float

    @property
    def error(self) -> str:
        """Type of the error that ended it; empty if none did."""
        found = re.search(r"^(\w+Error): ", self.output, re.MULTILINE)
        return found[1] if self.code and found else ""


@dataclass(frozen=True)
class Place:
    """Two generations of images in staging, the old one public. `source` and `target` are hosts, maybe of proxies."""

    source: Registry
    target: Registry
    prefix: str
    journals: Path
    environment: dict[str, str]

    def stage(self, size_bytes: int = 1000) -> None:
        for release in (OLD, NEW):
            for cell in CELLS:
                layers = (f"{release} {cell} {part} ".encode() for part in range(2))
                padded = [layer.ljust(size_bytes, b".") for layer in layers]
                push_image(self.source, staging_of(self.prefix, cell), *padded, tag=f"b-{release}")

    def start(self, release: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.promoter", *self._words(release)],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, release: str) -> Ran:
        started = time.monotonic()
        return ended(self.start(release), started)

    def now(self, release: str, *options: str) -> None:
        """In this process, with nothing in between."""
        config = Path(self.environment["DOCKER_CONFIG"]) / "config.json"
        promoter.run([*self._words(release), *options], lambda _: None, config)

    def _words(self, release: str) -> list[str]:
        return [self.source.host, self.target.host, self.prefix, str(self.journals), release]

    def state(self) -> State:
        """Whether public tags are all as before the new release, or all as after it."""
        wanted = {
            release: [
                self.source.head(staging_of(self.prefix, cell), f"b-{release}") for cell in CELLS
            ]
            for release in (OLD, NEW)
        }
        publics = [public_of(self.prefix, cell) for cell in CELLS]
        newest = [self.target.head(public, "latest") for public in publics]
        tagged = [self.target.head(public, NEW) for public in publics]
        if newest == wanted[OLD] and tagged == [None] * len(CELLS):
            return "old"
        return "new" if newest == tagged == wanted[NEW] else "mixed"

    @property
    def is_settled(self) -> bool:
        return not open_journals(self.journals)


def ended(process: subprocess.Popen[str], started: float) -> Ran:
    output, _ = process.communicate(timeout=180)
    return Ran(process.returncode, output, time.monotonic() - started)
