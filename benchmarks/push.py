"""Push of one image to an empty registry: the build stage's way, `docker push`, and skopeo.

    python -m benchmarks.push                         an image of 256 MiB made here: half random, half Python packages
    python -m benchmarks.push --image NAME --runs 5   an image that the engine has

Needs root (the engine's store is read), an engine that keeps images in overlay2, docker-registry, skopeo.
Every push goes to a registry of its own on loopback that holds nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import docker

from benchmarks.side_by_side import SideBySide, in_turns, keep, machine, version
from pipeline.world.engine import Engine
from pipeline.world.push import Place, push
from pipeline.world.registry import Registry
from tests.real_registry import real_registry

MADE = "flagrelease-benchmark/push:256"
HALF_BYTES = 128 << 20
DOCKERFILE = 'FROM scratch\nCOPY random /\nCOPY packages /\nCMD ["/none"]\n'
AT = Place(repository="toys/one", reference="t")
Way = Callable[[str], str]  # pushes to a host; gives the digest there


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("--image", default=MADE)
    asked.add_argument("--runs", type=int, default=5)
    asked.add_argument("--name", default="push")
    options = asked.parse_args()
    engine = Engine.connect()
    if options.image == MADE:
        make_image()
    image = engine.image(options.image)
    if image is None or engine.stored(image) is None:
        raise SystemExit(
            f"{options.image}: the engine has no such image, or its store cannot be read"
        )
    stored: dict[str, int] = {}

    def timed(way: str, pushed: Way) -> Callable[[], float]:
        def run() -> float:
            with tempfile.TemporaryDirectory() as folder, real_registry(Path(folder)) as host:
                return into(host, way, pushed)

        return run

    def into(host: str, way: str, pushed: Way) -> float:
        client, registry = docker.from_env(), Registry(host)
        name = f"{host}/{AT.repository}"
        client.images.get(options.image).tag(name, tag=AT.reference)
        try:
            started = time.perf_counter()
            pushed(host)
            took = time.perf_counter() - started
            digest = str(registry.head(AT.repository, AT.reference))
            if registry.config_digest(AT.repository, digest) != image.config_digest:
                raise SystemExit(f"{way} pushed another image")
            stored[way] = registry.stored_bytes(AT.repository, digest)
        finally:
            client.images.remove(f"{name}:{AT.reference}")
            registry.close()
            client.close()
        return took

    def ours(host: str) -> str:
        return push(engine, Registry(host), image, AT, parent=None, on_line=lambda _: None)

    def docker_push(host: str) -> str:
        return engine.push(f"{host}/{AT.repository}:{AT.reference}", on_line=lambda _: None)

    def skopeo(host: str) -> str:
        source = f"docker-daemon:{host}/{AT.repository}:{AT.reference}"
        target = f"docker://{host}/{AT.repository}:{AT.reference}"
        words = ["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"]
        subprocess.run([*words, source, target], check=True)
        return ""

    pushes = {"pipeline": ours, "docker push": docker_push, "skopeo copy": skopeo}
    ways, load = in_turns({way: timed(way, one) for way, one in pushes.items()}, options.runs)
    keep(
        options.name,
        SideBySide(
            what=f"push of an image of {image.size_bytes / 1e6:.0f} MB to an empty registry",
            command="python -m benchmarks.push"
            + ("" if options.image == MADE else f" --image … --name {options.name}"),
            machine=machine(),
            versions={"docker": engine.version, "skopeo": version("skopeo", "--version")},
            load=load,
            ways=ways,
            notes={f"MB stored by {way}": f"{size / 1e6:.1f}" for way, size in stored.items()},
        ),
    )


def make_image() -> None:
    """Two layers: bytes that cannot be compressed, and a tar of what this Python has installed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "random").write_bytes(os.urandom(HALF_BYTES))
        packages = sysconfig.get_path("purelib")
        with (folder / "packages").open("wb") as target:
            subprocess.run(
                ["tar", "--create", "--directory", packages, "."], stdout=target, check=True
            )
            target.truncate(HALF_BYTES)
        (folder / "Dockerfile").write_text(DOCKERFILE)
        subprocess.run(["docker", "build", "--quiet", "--tag", MADE, name], check=True)


if __name__ == "__main__":
    main()
