"""48 cells of which nothing changed: `release`, and `docker build && docker push` in a loop.

    python -m benchmarks.noop_and_docker

Needs an engine and docker-registry. Ours is the whole command on a finished release, with Python's start: it finds that
nothing is to do. The loop builds 48 images from contexts that did not change and pushes them to a registry that has
them: every step is cached, every layer there already. It knows nothing of tests, gates, cards and tags of a release.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.noop import timed
from benchmarks.side_by_side import SideBySide, in_turns, keep, machine, version
from tests.finished import CELLS, finished_release
from tests.real_registry import real_registry

RUNS = 7
DOCKERFILE = (
    'FROM scratch\nCOPY runtime /runtime\nCOPY conf /conf\nLABEL cell={number}\nCMD ["/none"]\n'
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, real_registry(Path(name, "registry")) as host:
        project, contexts = Path(name, "project"), Path(name, "contexts")
        project.mkdir()
        finished_release(project, host)
        images = write_contexts(contexts, host)
        try:
            ways, load = in_turns(
                {
                    "release": lambda: timed(project, forget=False)[0],
                    "docker build && docker push in a loop": lambda: build_and_push(images),
                },
                RUNS,
            )
        finally:
            docker("rmi", *images.values())
    keep(
        "noop",
        SideBySide(
            what=f"nothing to do for {CELLS} cells",
            command="python -m benchmarks.noop_and_docker",
            machine=machine(),
            versions={"docker": version("docker", "version", "--format", "{{.Server.Version}}")},
            load=load,
            ways=ways,
        ),
    )


def write_contexts(folder: Path, host: str) -> dict[Path, str]:
    """A context for each cell, and the name of its image."""
    images = {}
    for number in range(CELLS):
        context = folder / f"cell{number}"
        context.mkdir(parents=True)
        (context / "runtime").write_bytes(b"a runtime that all share")
        (context / "conf").write_text(f"cell {number}")
        (context / "Dockerfile").write_text(DOCKERFILE.format(number=number))
        images[context] = f"{host}/loop/cell{number}:t"
    return images


def build_and_push(images: dict[Path, str]) -> float:
    started = time.perf_counter()
    for context, image in images.items():
        docker("build", "--tag", image, str(context))
        docker("push", image)
    return time.perf_counter() - started


def docker(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, capture_output=True)


if __name__ == "__main__":
    main()
