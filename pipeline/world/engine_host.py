"""The machine that a container engine runs on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.world.node import processor


def is_elsewhere() -> bool:
    """Whether DOCKER_HOST names an engine of another machine: its paths are none of this one."""
    host = os.environ.get("DOCKER_HOST", "")
    return bool(host) and not host.startswith("unix://")


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine the engine runs on, as the engine describes it."""

    system: str
    kernel: str
    cpu: str
    cores: int
    memory_bytes: int

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Host:
        return cls(
            system=info["OperatingSystem"],
            kernel=info["KernelVersion"],
            cpu=processor(),
            cores=int(info["NCPU"]),
            memory_bytes=int(info["MemTotal"]),
        )


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How and where the engine keeps its images; the path is one of its own machine."""

    driver: str
    root: Path

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Storage:
        return cls(driver=info["Driver"], root=Path(info["DockerRootDir"]))

    def free_bytes(self) -> int:
        """Of this machine, before the first image too: then the folder is yet to be made."""
        root = self.root
        while not root.exists():
            root = root.parent
        return shutil.disk_usage(root).free
