"""A container engine in memory whose containers serve on loopback.

An image of it is a `FakeImage`: what its containers answer to a command. `ServingImage` is one that the flow
can serve for real, with a stand-in for vLLM's server inside.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipeline.chip import Run
from pipeline.errors import WorldError
from pipeline.world.engine import Engine, LocalImage
from pipeline.world.engine_container import Container, Limits
from pipeline.world.engine_host import Host
from pipeline.world.engine_store import StoredImage
from tests.fakes_registry import FakeRegistry, push_image
from tests.fakes_server import Behaviour, StandInServer

VERSION = "20.10.24"
HOST = Host(
    system="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0-test-amd64",
    cpu="Test Processor 9000",
    cores=2,
    memory_bytes=16_000_000_000,
)


# What a worker of the toy project's released stack writes.
EVIDENCE: Mapping[str, object] = {
    "evidence_schema": 1,
    "library": "bead_operators",
    "backend": "CPU",
    "rank": 0,
    "process": 328,
    "include": [],
    "exclude": ["gelu", "softmax"],
    "available": 5,
    "registered": ["add", "carry", "slide"],
    "dispatcher": {},
    "calls": {"add": 7, "carry": 0, "slide": 2},
    "started": 1.0,
    "written": 3.0,
    "ended": False,
}


class FakeImage:
    """Every command succeeds and says nothing; subclasses know better."""

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        return 0, ""

    def processes(self) -> list[str]:
        return ["sleep infinity"]

    def removed(self) -> None:
        """The container of the image is gone, with all that ran in it."""


@dataclass(kw_only=True)
class ServingImage(FakeImage):
    """An image whose launcher starts a server on the port, as FlagScale does."""

    port: int
    behaviour: Behaviour = field(default_factory=Behaviour)
    packages: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[int, str] = (0, "run_inference_engine started\n")
    starts: bool = True  # False: the launcher returns, and no server ever comes up
    stays: bool = True  # False: no process of a server is left behind either
    stops: bool = True  # whether the server ends when it is asked to
    has_profile_only: bool = False  # PATH is set by a shell profile alone
    devices: tuple[int, str] = (0, "2 cores\n")
    counted: str = ""  # what counting its cards prints
    log: str = "nanobind: leaked 1 instances!\nINFO: engine started\n"
    benched: tuple[int, str] = (0, "")
    bench_result: Mapping[str, float] | None = None
    loads: int = 0  # load runs so far
    warm_ups: Sequence[Sequence[str]] = ()  # loads of the warm-up, as their words
    evidence: Sequence[Mapping[str, object]] = (
        EVIDENCE,
    )  # of its operator library, a process each
    memory_events: str = ""  # what the kernel counted of its container
    server: StandInServer | None = None

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        match command:
            case ("flagscale", "serve", *_):
                return self._launch()
            case ("tail", "-n", count, *_):
                return 0, "\n".join(self.log.splitlines()[-int(count) :])
            case ("smi", *_):
                return self.devices
            case ("sh", "-c", _):
                return 0, self.counted
            case ("vllm", "bench", *_):
                self.loads += 1
                return self.benched
            case ("cat", "/sys/fs/cgroup/memory.events", *_):
                return 1, self.memory_events
            case ("cat", *_):
                found = self.bench_result
                return (1, "No such file\n") if found is None else (0, json.dumps(found))
            case ("python", "-c", script, *words):
                return self._python(script, words)
        raise AssertionError(f"the fake image knows no answer to {' '.join(command)}")

    def _launch(self) -> tuple[int, str]:
        if self.launcher[0] == 0 and self.starts:
            self.server = StandInServer(self.behaviour, self.port)
        return self.launcher

    def _python(self, script: str, words: Sequence[str]) -> tuple[int, str]:
        if "vllm.benchmarks.serve" in script:
            self.warm_ups = json.loads(words[0])
            return self.benched
        if "rank*.json" in script:
            return 0, json.dumps(self.evidence)
        if "SIGTERM" in script or "SIGKILL" in script:
            if self.stops:
                self.removed()
            return 0, ""
        if "importlib.metadata" in script:
            inside = {"os": "Debian", "python": "3.11.2", "packages": dict(self.packages)}
            return 0, f"a warning\n{json.dumps(inside)}\n"
        if "cpu_count" in script:
            return self.devices
        return (127, "python: not found\n") if self.has_profile_only else (0, "2.13.0\n")

    def processes(self) -> list[str]:
        if self.server or (self.stays and not self.starts):
            return ["sleep infinity", "python -m vllm serve", "VLLM::EngineCore"]
        return ["sleep infinity"]

    def removed(self) -> None:
        if self.server:
            self.server.stop()
            self.server = None


class FakeContainer(Container):
    def __init__(self, name: str, image: FakeImage, command: Sequence[str]) -> None:
        self.name = name
        self.image = image
        self.command = tuple(command)
        self.is_running = True
        self.ended = ""  # how its own command did, in words
        self.executed: list[tuple[str, ...]] = []

    def execute(self, command: Sequence[str]) -> tuple[int, str]:
        if not self.running():
            raise WorldError("the container ended: is not running", where=self.name)
        self.executed.append(tuple(command))
        return self.image.answer(tuple(command))

    def wait(self) -> tuple[int, str]:
        code, output = self.image.answer(self.command)
        self.ended = f"ended with exit code {code}"
        return code, output

    def ending(self) -> str:
        return self.ended if self.is_running else "was removed"

    def processes(self) -> list[str]:
        return self.image.processes()


@dataclass(frozen=True, kw_only=True)
class Started:
    """A container as the engine was asked for it."""

    image: str
    command: tuple[str, ...]
    run: Run
    name: str
    volumes: Mapping[str, str]
    user: str | None
    limits: Limits | None = None


class FakeEngine(Engine):
    """Has every public method of `Engine`; builds go to the registry it was given."""

    def __init__(
        self,
        image: FakeImage | None = None,
        registry: FakeRegistry | None = None,
        *,
        free_gib: float | None = 1000,
        when_started: Callable[[Started], None] | None = None,
    ) -> None:
        self.version = VERSION
        self.served = image or FakeImage()
        self.registry = registry or FakeRegistry()
        self.free_gib = free_gib
        self.when_started = when_started
        self.started: list[Started] = []
        self.containers: dict[str, FakeContainer] = {}  # those that were not removed
        self.built: list[tuple[str, Mapping[str, str]]] = []  # tag and build arguments
        self.images: dict[str, LocalImage] = {}

    def host(self) -> Host:
        return HOST

    def free_bytes(self) -> int | None:
        return None if self.free_gib is None else int(self.free_gib * 1024**3)

    def image(self, reference: str) -> LocalImage | None:
        """By any of its names, or by its config digest."""
        by_digest = (image for image in self.images.values() if image.config_digest == reference)
        return self.images.get(reference) or next(by_digest, None)

    def import_tree(self, archive: Path, *, tag: str, changes: Sequence[str]) -> LocalImage:
        return self._made(tag, archive.read_bytes())

    def build(
        self,
        context: IO[bytes],
        *,
        tag: str,
        labels: Mapping[str, str],
        arguments: Mapping[str, str],
        on_line: Callable[[str], None],
    ) -> LocalImage:
        self.built.append((tag, dict(arguments)))
        on_line(f"building {tag}")
        return self._made(tag, tag.encode(), labels)

    def push(self, reference: str, *, on_line: Callable[[str], None]) -> str:
        repository, _, tag = reference.partition("/")[2].rpartition(":")
        on_line(f"pushing {reference}")
        return push_image(self.registry, repository, tag.encode(), tag=tag)

    def stored(self, image: LocalImage) -> StoredImage | None:
        return None

    def pull(self, reference: str) -> LocalImage:
        return self.images.get(reference) or self._made(reference, reference.encode())

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
        if name in self.containers:
            raise WorldError(f"the container engine refused: the name {name} is in use", where=name)
        started = Started(
            image=image,
            command=tuple(command),
            run=run,
            name=name,
            volumes=dict(volumes),
            user=user,
            limits=limits,
        )
        self.started.append(started)
        if self.when_started:
            self.when_started(started)
        container = FakeContainer(name, self.served, command)
        self.containers[name] = container
        try:
            yield container
        finally:
            container.is_running = False
            self.containers.pop(name, None)
            if not self.containers:
                self.served.removed()

    def has_container(self, name: str) -> bool:
        return any(re.fullmatch(name, known) for known in self.containers)

    def remove_container(self, name: str, *, image: str) -> None:
        if any(one.name == name and one.image == image for one in self.started):
            self.containers.pop(name, None)

    def remove_left_over(self) -> tuple[str, ...]:
        return ()

    def _made(
        self, reference: str, content: bytes, labels: Mapping[str, str] | None = None
    ) -> LocalImage:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        made = LocalImage(config_digest=digest, size_bytes=len(content), labels=dict(labels or {}))
        self.images[reference] = made
        return made
