"""A Python environment of its own for a harness, made from a pinned list of requirements when it is first needed."""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.canonical import sha256_file, write_whole
from pipeline.world.command import run

HINT = "see that the package index answers and that there are 2 GB of room; the log has the rest"


def harness_python(requirements: Path, environments: Path, say: Callable[[str], None]) -> Path:
    """The interpreter of an environment that holds exactly these requirements.

    Raises CommandError when a package cannot be had. The environment's name holds the hash of the list, so that another
    list is another environment; one that is half made is made again.
    """
    folder = environments / f"{requirements.stem}-{sha256_file(requirements)[:12]}"
    python, complete = folder / "bin" / "python", folder / "complete"
    environments.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs must not make it at once
        if not complete.exists():
            say(f"making the environment of {requirements.stem}, once")
            shutil.rmtree(folder, ignore_errors=True)
            log = folder.with_suffix(".log")
            _uv("venv", "--no-config", "--python", sys.executable, folder, log=log)
            options = ("--no-config", "--system-certs", "--require-hashes", "--python", python)
            _uv("pip", "sync", *options, requirements, log=log)
            write_whole(complete, b"")
    return python


def _uv(*words: str | Path, log: Path) -> None:
    run(
        [sys.executable, "-m", "uv", *words],
        doing="making the environment of a harness",
        hint=HINT,
        log=log,
    )
