"""The one door to the container engine (docker-py on the classic builder)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import docker
import docker.errors
import requests
from docker.models.containers import Container as DockerContainer

from pipeline.errors import WorldError
from pipeline.world.engine_container import Container, Limits, start_arguments
from pipeline.world.engine_errors import START_HINT, asking, build_error
from pipeline.world.engine_host import Host, Storage, is_elsewhere
from pipeline.world.engine_store import StoredImage, stored_image
from pipeline.world.process import is_over, me
from pipeline.world.untidy import untidy

if TYPE_CHECKING:
    # A command that starts no container does not load the matrix's types.
    from pipeline.chip import Run

# <host>:<pid>:<start ticks> of the pipeline that started it
OWNER_LABEL = "io.flagos.release.owner"


@dataclass(frozen=True, kw_only=True)
class LocalImage:
    config_digest: str
    size_bytes: int
    labels: Mapping[str, str]


class Engine:
    """A Docker Engine. Everything it raises is a WorldError, unless a build step itself failed."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        self.version: str = client.version()["Version"]

    @classmethod
    def connect(cls, *, timeout_s: int = 900) -> Engine:
        try:
            return cls(docker.from_env(timeout=timeout_s))
        except (docker.errors.DockerException, requests.RequestException) as error:
            raise WorldError(
                "the container engine does not answer",
                where=os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"),
                details=str(error),
                hint=START_HINT,
            ) from error

    @property
    def builder(self) -> str:
        return f"docker-classic {self.version}"

    def host(self) -> Host:
        return Host.of(self._info("reading the engine's host"))

    def storage(self) -> Storage:
        return Storage.of(self._info("reading where the engine keeps its images"))

    def free_bytes(self) -> int | None:
        """Free space where the engine keeps its images; None if that is on another machine."""
        return None if is_elsewhere() else self.storage().free_bytes()

    def image(self, reference: str) -> LocalImage | None:
        with asking(f"looking for {reference}"):
            try:
                found = self._client.images.get(reference)
            except docker.errors.ImageNotFound:
                return None
        return LocalImage(
            config_digest=str(found.id),
            size_bytes=int(found.attrs["Size"]),
            labels=found.attrs["Config"].get("Labels") or {},
        )

    def import_tree(self, archive: Path, *, tag: str, changes: Sequence[str]) -> LocalImage:
        """A root file system as an image."""
        repository, _, name = tag.rpartition(":")
        with asking(f"importing {archive.name}"), archive.open("rb") as file:
            # An iterator, not the file: docker-py announces chunks, and requests sends a file without any.
            chunks = iter(lambda: file.read(1 << 20), b"")
            answer = self._client.api.import_image_from_stream(
                chunks, repository=repository, tag=name, changes=list(changes)
            )
        return self._must_have(tag, answer)

    def build(
        self,
        context: IO[bytes],
        *,
        tag: str,
        labels: Mapping[str, str],
        arguments: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> LocalImage:
        """Build a tar context. Raises StageRefusedError with the step that failed."""
        last: list[str] = []
        with asking(f"building {tag}"):
            stream = self._client.api.build(
                fileobj=context,
                custom_context=True,
                encoding=None,
                tag=tag,
                labels=dict(labels),
                buildargs=dict(arguments),
                network_mode="host",
                rm=True,
                forcerm=True,
                decode=True,
            )
            for event in stream:
                for line in str(event.get("stream", "")).splitlines():
                    if line.strip():
                        on_line(line)
                        last = [*last[-19:], line]
                if "error" in event:
                    raise build_error(str(event["error"]).strip(), last, tag)
        return self._must_have(tag, last)

    def push(self, reference: str, *, on_line: Callable[[str], None]) -> str:
        """Push a tagged image; the digest of its manifest as the registry answered it."""
        repository, _, tag = reference.rpartition(":")
        digest = ""
        with asking(f"pushing {reference}"):
            for event in self._client.api.push(repository, tag=tag, stream=True, decode=True):
                if "error" in event:
                    raise WorldError(
                        f"the registry refused: {event['error']}",
                        where=f"pushing {reference}",
                        hint="see that the registry answers and has room (./bootstrap --check)",
                    )
                digest = event.get("aux", {}).get("Digest", digest)
                if event.get("status") and not event.get("progressDetail"):
                    on_line(f"{event.get('id', '')} {event['status']}".strip())
        return digest

    def stored(self, image: LocalImage) -> StoredImage | None:
        """The image in the engine's own store; None unless that is overlay2 on this machine and we may read it."""
        return stored_image(self.storage().root, image.config_digest)

    def pull(self, reference: str) -> LocalImage:
        """Pull by digest unless the engine has it."""
        found = self.image(reference)
        if found is None:
            with asking(f"pulling {reference}"):
                self._client.images.pull(reference)
            found = self._must_have(reference, "")
        return found

    @contextmanager
    def container(
        self,
        image: str,
        command: Sequence[str],
        *,
        run: Run,
        name: str,
        volumes: Mapping[str, str],
        user: str | None = None,
        limits: Limits | None = None,
    ) -> Iterator[Container]:
        """A running container that is removed at the end, whatever happens."""
        arguments = start_arguments(run, volumes=volumes, user=user, limits=limits)
        with untidy(), asking(f"starting a container of {image}"):
            container = self._client.containers.create(
                image, list(command), name=name, labels={OWNER_LABEL: me()}, **arguments
            )
        try:
            with asking(f"starting a container of {image}"):
                container.start()
            yield Container(container)
        finally:
            # What cannot be removed now is removed by the next run, by its owner label.
            with suppress(docker.errors.DockerException, requests.RequestException):
                container.remove(force=True, v=True)

    def run_once(
        self,
        image: str,
        command: Sequence[str],
        *,
        run: Run,
        name: str,
        volumes: Mapping[str, str],
        user: str | None = None,
        limits: Limits | None = None,
    ) -> tuple[int, str]:
        """Run a command in a container of its own to its end: exit code and what it printed."""
        with self.container(
            image, command, run=run, name=name, volumes=volumes, user=user, limits=limits
        ) as container:
            return container.wait()

    def has_container(self, name: str) -> bool:
        """Running or not; the name may be a pattern."""
        return bool(self._named(name))

    def remove_container(self, name: str, *, image: str) -> None:
        """Remove the container of this name if it was started from exactly this reference: nobody else's."""
        for container in self._named(name):
            if container.attrs["Config"]["Image"] == image:
                with asking(f"removing the container {name}"):
                    container.remove(force=True, v=True)

    def remove_left_over(self) -> tuple[str, ...]:
        """Remove containers of pipelines that no longer run; their names."""
        return self._remove_of(is_over)

    def remove_own(self) -> tuple[str, ...]:
        """Remove the containers of all threads of this process, whose waiting then fails; their names."""
        return self._remove_of(me().__eq__)

    def _remove_of(self, is_meant: Callable[[str], bool]) -> tuple[str, ...]:
        removed = []
        with asking("looking for containers of pipelines"):
            ours = self._client.containers.list(all=True, filters={"label": OWNER_LABEL})
        for container in ours:
            if is_meant(container.labels[OWNER_LABEL]):
                with suppress(docker.errors.APIError):  # another run or thread cleans up too
                    container.remove(force=True, v=True)
                removed.append(str(container.name))
        return tuple(removed)

    def _named(self, name: str) -> list[DockerContainer]:
        with asking(f"looking for the container {name}"):
            return list(self._client.containers.list(all=True, filters={"name": f"^/?{name}$"}))

    def _info(self, doing: str) -> dict[str, Any]:
        with asking(doing):
            return dict(self._client.info())

    def _must_have(self, reference: str, answer: object) -> LocalImage:
        found = self.image(reference)
        if found is None:
            raise WorldError(
                "the engine reports success, but has no such image",
                where=reference,
                details=str(answer),
            )
        return found
