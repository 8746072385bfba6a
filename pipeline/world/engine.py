"""The one door to the container engine (docker-py on the classic builder)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import docker
import docker.errors
import requests
import urllib3.exceptions
from docker.models.containers import Container as DockerContainer
from docker.types import DeviceRequest, Ulimit

from pipeline.errors import StageRefusedError, WorldError
from pipeline.run_arguments import engine_arguments
from pipeline.world.causes import of_machine
from pipeline.world.engine_store import StoredImage, stored_image
from pipeline.world.node import processor
from pipeline.world.process import is_over, me

if TYPE_CHECKING:
    from pipeline.chip import (
        Run,
    )  # a command that starts no container does not load the matrix's types

OWNER_LABEL = (
    "io.flagos.release.owner"  # <host>:<pid>:<start ticks> of the pipeline that started it
)
ENDED_HINT = "the container ended or was removed; docker events --since 10m says by whom"
OOM = "for want of memory (OOM)"
START_HINT = "start it with ./bootstrap, or see that your user may use it (docker ps)"

# docker-py passes on what requests and urllib3 raise, and on a raw socket what the socket raises.
BROKEN = (
    docker.errors.DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)


def is_elsewhere() -> bool:
    """Whether DOCKER_HOST names an engine of another machine: its paths are none of this one."""
    host = os.environ.get("DOCKER_HOST", "")
    return bool(host) and not host.startswith("unix://")


@dataclass(frozen=True, kw_only=True)
class LocalImage:
    config_digest: str
    size_bytes: int
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine the engine runs on, as the engine describes it."""

    system: str
    kernel: str
    cpu: str
    cores: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """For code that nobody has read: it gets this much, a root file system it cannot write, and no capability."""

    memory_bytes: int
    processes: int
    scratch_bytes: int  # of /tmp, in memory

    def arguments(self) -> dict[str, Any]:
        return {
            "mem_limit": self.memory_bytes,
            "memswap_limit": self.memory_bytes,
            "pids_limit": self.processes,
            "read_only": True,
            "tmpfs": {"/tmp": f"size={self.scratch_bytes},mode=1777"},  # noqa: S108 inside
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
        }


@dataclass(frozen=True, kw_only=True)
class Storage:
    """How and where the engine keeps its images; the path is one of its own machine."""

    driver: str
    root: Path


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
            where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
            raise WorldError(
                "the container engine does not answer",
                where=where,
                details=str(error),
                hint=START_HINT,
            ) from error

    @property
    def builder(self) -> str:
        return f"docker-classic {self.version}"

    def host(self) -> Host:
        with _asking("reading the engine's host"):
            info = self._client.info()
        return Host(
            system=info["OperatingSystem"],
            kernel=info["KernelVersion"],
            cpu=processor(),
            cores=int(info["NCPU"]),
            memory_bytes=int(info["MemTotal"]),
        )

    def storage(self) -> Storage:
        with _asking("reading where the engine keeps its images"):
            info = self._client.info()
        return Storage(driver=info["Driver"], root=Path(info["DockerRootDir"]))

    def free_bytes(self) -> int | None:
        """Free space where the engine keeps its images; None if that is on another machine."""
        if is_elsewhere():
            return None
        root = self.storage().root
        while not root.exists():
            root = root.parent
        return shutil.disk_usage(root).free

    def image(self, reference: str) -> LocalImage | None:
        with _asking(f"looking for {reference}"):
            try:
                found = self._client.images.get(reference)
            except docker.errors.ImageNotFound:
                return None
        attributes = found.attrs
        return LocalImage(
            config_digest=str(found.id),
            size_bytes=int(attributes["Size"]),
            labels=attributes["Config"].get("Labels") or {},
        )

    def import_tree(self, archive: Path, *, tag: str, changes: Sequence[str]) -> LocalImage:
        """A root file system as an image."""
        repository, _, name = tag.rpartition(":")
        with _asking(f"importing {archive.name}"), archive.open("rb") as file:
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
        with _asking(f"building {tag}"):
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
                    said = str(event["error"]).strip()
                    advice = of_machine("\n".join([*last, said]))
                    raise (WorldError if advice else StageRefusedError)(
                        f"a step of the image build failed: {said}",
                        where=f"building {tag}",
                        details="\n".join(last),
                        hint=advice or "the whole log is build.log in the cell's folder under out/",
                    )
        return self._must_have(tag, last)

    def push(self, reference: str, *, on_line: Callable[[str], None]) -> str:
        """Push a tagged image; the digest of its manifest as the registry answered it."""
        repository, _, tag = reference.rpartition(":")
        digest = ""
        with _asking(f"pushing {reference}"):
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
            with _asking(f"pulling {reference}"):
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
        arguments = engine_arguments(run, volumes=volumes)
        arguments["ulimits"] = [Ulimit(**limit) for limit in arguments["ulimits"]]
        if "device_requests" in arguments:
            arguments["device_requests"] = [
                DeviceRequest(**r) for r in arguments["device_requests"]
            ]
        if user is not None:
            arguments["user"] = user
        if limits is not None:
            arguments |= limits.arguments()
        with _asking(f"starting a container of {image}"):
            container = self._client.containers.create(
                image,
                list(command),
                name=name,
                labels={OWNER_LABEL: me()},
                **arguments,
            )
        try:
            with _asking(f"starting a container of {image}"):
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
        with _asking(f"looking for the container {name}"):
            found = self._client.containers.list(all=True, filters={"name": f"^/?{name}$"})
        return bool(found)

    def remove_container(self, name: str, *, image: str) -> None:
        """Remove the container of this name if it was started from exactly this reference: nobody else's."""
        with _asking(f"looking for the container {name}"):
            found = self._client.containers.list(all=True, filters={"name": f"^/?{name}$"})
        for container in found:
            if container.attrs["Config"]["Image"] == image:
                with _asking(f"removing the container {name}"):
                    container.remove(force=True, v=True)

    def remove_left_over(self) -> tuple[str, ...]:
        """Remove containers of pipelines that no longer run; their names."""
        return self._remove_of(is_over)

    def remove_own(self) -> tuple[str, ...]:
        """Remove the containers of all threads of this process, whose waiting then fails; their names."""
        return self._remove_of(me().__eq__)

    def _remove_of(self, is_meant: Callable[[str], bool]) -> tuple[str, ...]:
        removed = []
        with _asking("looking for containers of pipelines"):
            ours = self._client.containers.list(all=True, filters={"label": OWNER_LABEL})
        for container in ours:
            if is_meant(container.labels[OWNER_LABEL]):
                with suppress(docker.errors.APIError):  # another run or thread cleans up too
                    container.remove(force=True, v=True)
                removed.append(str(container.name))
        return tuple(removed)

    def _must_have(self, reference: str, answer: object) -> LocalImage:
        found = self.image(reference)
        if found is None:
            raise WorldError(
                "the engine reports success, but has no such image",
                where=reference,
                details=str(answer),
            )
        return found


@contextmanager
def _asking(doing: str, hint: str = START_HINT) -> Iterator[None]:
    """Turns whatever the engine answers wrongly, or not at all, into one WorldError."""
    try:
        yield
    except docker.errors.APIError as error:
        raise WorldError(
            f"the container engine refused: {error.explanation or error}",
            where=doing,
            hint=of_machine(str(error)) or hint,
        ) from error
    except BROKEN as error:
        raise WorldError(
            f"the container engine did not answer: {error}", where=doing, hint=START_HINT
        ) from error


class Container:
    """A running container: commands inside it, its state, its files."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container
        self.name = str(container.name)

    def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command inside, without a shell profile, for as long as it takes: exit code and output."""
        with _asking(f"running {command[0]} in {self.name}", ENDED_HINT):
            code, output = self._container.exec_run(list(command))
        if not isinstance(code, int) or not isinstance(output, bytes):
            raise WorldError(
                "the container ended while a command ran in it",
                where=f"{' '.join(command)[:200]} in {self.name}",
                hint=ENDED_HINT,
            )
        return code, output.decode(errors="replace")

    def wait(self) -> tuple[int, str]:
        """Exit code and output of the container's own command, once it has ended."""
        with _asking(f"waiting for {self.name}", ENDED_HINT):
            code = int(self._container.wait()["StatusCode"])
            return code, bytes(self._container.logs()).decode(errors="replace")

    def running(self) -> bool:
        return not self.ending()

    def ending(self) -> str:
        """How it ended, in words; "" while it runs."""
        with _asking(f"looking at {self.name}", ENDED_HINT):
            try:
                self._container.reload()
            except docker.errors.NotFound:
                return "was removed"
        state = self._container.attrs["State"]
        if state["Running"]:
            return ""
        why = f" {OOM}" if state["OOMKilled"] else ""
        return f"ended with exit code {state['ExitCode']}{why}"

    def processes(self) -> list[str]:
        """Command lines of every process inside."""
        with _asking(f"listing the processes of {self.name}", ENDED_HINT):
            table = self._container.top()
        column = table["Titles"].index("CMD")
        return [row[column] for row in table["Processes"]]
