"""A real image through our push: what comes back is the same image, and only what is new was sent."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from pipeline.chip import Run
from pipeline.world.context import write_context
from pipeline.world.engine import Engine, LocalImage
from pipeline.world.oci import Manifest
from pipeline.world.push import Place, push
from pipeline.world.registry import Registry
from tests.real_registry import real_registry

pytestmark = pytest.mark.integration
# Links, a removed folder, an emptied one, a name that is no UTF-8, modes, a sparse file.
DOCKERFILE = b"""\
ARG BASE
FROM ${BASE}
RUN mkdir /made && cd /made && echo one >first && ln first hard && ln -s first soft && truncate -s 3M sparse \\
 && python3 -c 'open(b"odd\\xff", "w").write("odd")' && chmod 4755 first && rm -r /usr/share/doc \\
 && rm -r /usr/share/man && mkdir /usr/share/man
COPY random /random
CMD ["python3", "-c", "print(open('/made/hard').read() + open(b'/made/odd\\\\xff').read())"]
"""


@dataclass(frozen=True)
class Site:
    """An engine, and a registry that is empty."""

    engine: Engine
    registry: Registry
    storage: Path

    def push(self, image: LocalImage, place: Place, parent: Place | None) -> str:
        name = f"{self.registry.host}/{place.repository}"
        client = docker.from_env()
        client.images.get(image.config_digest).tag(name, tag=place.reference)
        client.close()
        lines: list[str] = []
        return push(self.engine, self.registry, image, place, parent=parent, on_line=lines.append)

    def manifest(self, place: Place) -> Manifest:
        found = self.registry.manifest(place.repository, place.reference)
        assert found is not None
        return found

    def forget(self) -> None:
        """Take every name of this registry, and with it what only it names, from the engine."""
        client = docker.from_env()
        for image in client.images.list():
            for name in [*image.attrs["RepoDigests"], *image.tags]:
                if name.startswith(f"{self.registry.host}/"):
                    client.images.remove(name)
        client.close()

    def blobs(self) -> dict[str, int]:
        """What the registry stores, and when each was written."""
        blobs = self.storage.rglob("blobs/sha256/*/*/data")
        return {path.parent.name: path.stat().st_mtime_ns for path in blobs}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with real_registry(tmp_path) as host:
        registry = Registry(host, docker_config=tmp_path / "none.json")
        found = Site(Engine.connect(), registry, tmp_path / "storage")
        yield found
        found.forget()
        registry.close()


@pytest.fixture
def base(site: Site, sdk: str) -> LocalImage:
    image = site.engine.pull(sdk)
    if site.engine.stored(image) is None:
        pytest.skip("the engine's store cannot be read here: not overlay2, or not root")
    return image


def built(site: Site, base: LocalImage, place: Place) -> LocalImage:
    context = io.BytesIO()
    write_context(context, {"Dockerfile": DOCKERFILE, "random": os.urandom(5 << 20)})
    return site.engine.build(
        context,
        tag=f"{site.registry.host}/{place.repository}:{place.reference}",
        labels={},
        arguments={"BASE": base.config_digest},
        on_line=lambda _: None,
    )


def test_a_pushed_image_is_pulled_back_as_it_was_and_runs(site: Site, base: LocalImage) -> None:
    lower = Place(repository="toys/base", reference="b-1")
    upper = Place(repository="toys/runtime", reference="b-1")
    parent = Place(repository="toys/base", reference=site.push(base, lower, None))
    image = built(site, base, upper)
    digest = site.push(image, upper, parent)

    # The engine knows the image by the registry's digest, though it fetched nothing.
    known = site.engine.image(f"{site.registry.host}/toys/runtime@{digest}")
    assert known is not None
    assert known.config_digest == image.config_digest

    site.forget()
    assert site.engine.image(image.config_digest) is None
    pulled = site.engine.pull(f"{site.registry.host}/toys/runtime@{digest}")
    assert pulled == image
    code, output = site.engine.run_once(
        pulled.config_digest,
        [
            "sh",
            "-c",
            "exec 2>&1; stat -c %a /made/first; cat /made/soft; ls /usr/share/doc; ls -A /usr/share/man",
        ],
        run=Run(network="none"),
        name="push-comes-back",
        volumes={},
    )
    assert (code, output) == (
        0,
        "4755\none\nls: cannot access '/usr/share/doc': No such file or directory\n",
    )


def test_nothing_is_sent_that_the_registry_has(site: Site, base: LocalImage) -> None:
    lower = Place(repository="toys/base", reference="b-1")
    upper = Place(repository="toys/runtime", reference="b-1")
    parent = Place(repository="toys/base", reference=site.push(base, lower, None))
    before = site.blobs()
    image = built(site, base, upper)
    digest = site.push(image, upper, parent)
    layers = site.manifest(upper).content.layers
    assert layers[:1] == site.manifest(lower).content.layers
    new = {layer.digest for layer in layers[1:]} | {image.config_digest, digest}
    assert {f"sha256:{name}" for name in site.blobs().keys() - before.keys()} == new

    # Again, and without a parent: the layers are known from the image that was pushed before.
    before = site.blobs()
    assert site.push(image, upper, None) == digest
    after = site.blobs()
    manifest = digest.removeprefix("sha256:")
    assert {**after, manifest: 0} == {**before, manifest: 0}
