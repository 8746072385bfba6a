"""How long `release` takes for 48 finished cells, as a whole process, with Python's start.

    python -m benchmarks.noop

A Debian docker-registry of its own holds the images; cards lie in a folder, then on stand-ins of both model hubs, on
loopback. First everything is planned anew (what is known of the last such run is removed before), then it is known.

Wall seconds depend on what else the machine does; processor seconds less so.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from tests.fakes_hubs import HuggingFaceHandler, ModelScopeHandler, serving
from tests.finished import CELLS, ENVIRONMENT, FOLDER_HUB, finished_release
from tests.real_registry import real_registry

RUNS = 9


def main() -> None:
    with serving(HuggingFaceHandler) as one, serving(ModelScopeHandler) as other:
        huggingface, modelscope = (
            {"organisation": "Toys", "endpoint": hub.endpoint} for hub in (one, other)
        )
        time_with("cards in a folder", FOLDER_HUB)
        time_with("cards on two hubs", {"huggingface": huggingface}, {"modelscope": modelscope})


def time_with(what: str, *hubs: Mapping[str, object]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "project")
        folder.mkdir()
        with real_registry(Path(name, "registry")) as host:
            finished_release(folder, host, *hubs)
            load = f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()}"
            print(f"{CELLS} cells, {what}, {load}")
            print_times("planned anew", folder, forget=True, runs=3)
            print_times("known", folder, forget=False, runs=RUNS)


def print_times(what: str, folder: Path, *, forget: bool, runs: int) -> None:
    times = [timed(folder, forget=forget) for _ in range(runs)]
    wall, worked = zip(*times, strict=True)
    print(
        f"{what}: {min(wall):.2f} s at best, {median(wall):.2f} s in the middle of {runs}; "
        f"{median(worked):.2f} s of a processor"
    )


def timed(folder: Path, *, forget: bool) -> tuple[float, float]:
    """Wall and processor seconds of one command."""
    if forget:
        shutil.rmtree(folder / "out/noop", ignore_errors=True)
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "pipeline", "release"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
