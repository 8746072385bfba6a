"""A served stack: the image started the way its card says, ready or refused, and always removed."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import requests

from pipeline.chip import Run
from pipeline.errors import PipelineError, WorldError
from pipeline.world.causes import LAST_LINES, errors_in
from pipeline.world.device_memory import CardShare, refuse_busy_cards
from pipeline.world.engine import Engine
from pipeline.world.engine_container import Container
from pipeline.world.openai import direct_session
from pipeline.world.server_end import LOOKED_AT, end_of, tail

POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How one stack of one image is started."""

    image: str  # by digest
    run: Run
    name: str
    volumes: dict[str, str]
    command: tuple[str, ...]  # inside the container
    log_path: str  # of the server, inside the container
    port: int
    budget_s: float
    health_path: str = "/health"
    takes: CardShare | None = None  # None: of no card, or of one whose tool cannot tell


@dataclass(frozen=True, kw_only=True)
class Served:
    """A server that answers its health check; nothing more is promised."""

    container: Container
    begun: float  # monotonic, before `docker run`
    begun_at: datetime  # the same moment, UTC
    base_url: str
    log_path: str
    launcher_seconds: float
    ready_seconds: float
    launcher_output: str = field(repr=False)

    def log_tail(self, lines: int = LAST_LINES) -> str:
        """The last lines of the server's own log, for error texts."""
        return tail(self.container, self.log_path, lines)

    def is_healthy(self) -> bool:
        """False too where an engine has died behind a server that still answers."""
        return _healthy(f"{self.base_url}/health")

    def log_errors(self) -> str:
        """The first distinct errors of the server's log, where a cause stands; its last lines when it names none."""
        return errors_in(self.log_tail(LOOKED_AT))

    def refuse_known_end(self, *, of_image_too: bool = False) -> None:
        """For whoever got a wrong answer or none: a known cause is told instead, one of the machine as a WorldError.

        What is known of the image is told `of_image_too`, as a StageRefusedError, when the server is gone.
        """
        end = end_of(self.container, self.log_tail(LOOKED_AT))
        if end.is_of_machine or (of_image_too and end.advice and not self.is_healthy()):
            raise end.error("the server died while it was asked", where=self.base_url)

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """What a dying server answers is no answer; and its log, which ends with the container, is told."""
        try:
            yield
        except Exception as error:
            self.refuse_known_end(of_image_too=True)
            if isinstance(error, WorldError) and not self.is_healthy():
                details = self.log_errors()
                raise WorldError(error.message, where=error.where, details=details) from error
            raise
        if not self.is_healthy():
            self.refuse_known_end(of_image_too=True)


@contextmanager
def serving(engine: Engine, launch: Launch, say: Callable[[str], None]) -> Iterator[Served]:
    """Start, wait until healthy, yield, remove. Raises StageRefusedError when the server dies or its budget ends.

    WorldError when the machine is why it died: that is no answer about the image.
    """
    refuse_taken_port(launch.port)
    if launch.takes:
        refuse_busy_cards(launch.takes)
    begun, begun_at = time.monotonic(), datetime.now(UTC)
    with engine.container(
        launch.image,
        ["sleep", "infinity"],
        run=launch.run,
        name=launch.name,
        volumes=launch.volumes,
    ) as container:
        started = time.monotonic()
        code, output = container.execute(launch.command)
        launcher_seconds = time.monotonic() - started
        if code != 0:
            raise _refused(f"the launcher ended with exit code {code}", launch, container, output)
        base_url = f"http://127.0.0.1:{launch.port}"
        _wait(container, launch, base_url, started, output, say)
        yield Served(
            container=container,
            begun=begun,
            begun_at=begun_at,
            base_url=base_url,
            log_path=launch.log_path,
            launcher_seconds=launcher_seconds,
            ready_seconds=time.monotonic() - started,
            launcher_output=output,
        )


def refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise WorldError(
                f"port {port} is in use on this machine",
                where=f"127.0.0.1:{port}",
                hint=f"stop what listens there (ss -ltnp 'sport = :{port}'), or change the model's port",
            )


def stop_server(served: Served, *, patience_s: float) -> tuple[bool, str]:
    """Ask the server's processes to end, as `docker stop` would; True when none is left and the port is free."""
    started = time.monotonic()
    served.container.execute(["python", "-c", _END_SERVER])
    while left := server_processes(served.container):
        if time.monotonic() - started >= patience_s:
            return False, f"still running after {patience_s:.0f} s: {'; '.join(left)}"
        time.sleep(POLL_S)
    return True, f"ended in {time.monotonic() - started:.1f} s"


def kill_server(served: Served) -> None:
    """For a server that hangs: whoever waits for its answer gets an error at once."""
    served.container.execute(["python", "-c", _END_SERVER.replace("SIGTERM", "SIGKILL")])


# SIGTERM to every process whose command line names the server; the image has no pkill.
_END_SERVER = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").iterdir():
    if folder.name.isdigit() and int(folder.name) not in (1, os.getpid()):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\\0", b" ")
            if b"vllm" in line and b"serve" in line:
                os.kill(int(folder.name), signal.SIGTERM)
        except OSError:
            pass
"""


def server_processes(container: Container) -> list[str]:
    """Command lines inside the container that belong to a server."""
    names = ("vllm", "VLLM", "run_inference_engine", "multiprocessing")
    return [line for line in container.processes() if any(name in line for name in names)]


def _wait(
    container: Container,
    launch: Launch,
    base_url: str,
    started: float,
    launcher_output: str,
    say: Callable[[str], None],
) -> None:
    absent = 0
    while True:
        elapsed = time.monotonic() - started
        if _healthy(base_url + launch.health_path):
            return
        absent = 0 if container.running() and server_processes(container) else absent + 1
        if absent >= 3:
            died = f"the server died after {elapsed:.0f} s while starting"
            log = tail(container, launch.log_path, LOOKED_AT) or launcher_output
            raise _refused(died, launch, container, log)
        if elapsed > launch.budget_s:
            late = f"the server was not ready in its budget of {launch.budget_s:.0f} s"
            log = tail(container, launch.log_path, LOOKED_AT)
            raise _refused(late, launch, container, log)
        say(f"{elapsed:4.0f} s  {_last_line(container, launch.log_path)}")
        time.sleep(POLL_S)


def _healthy(url: str) -> bool:
    try:
        with direct_session() as session:
            return session.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _last_line(container: Container, path: str) -> str:
    return tail(container, path, 1)[:110]


def _refused(message: str, launch: Launch, container: Container, log: str) -> PipelineError:
    around = f"docker run --rm -it {launch.image} bash"
    return end_of(container, log).error(
        message,
        where=f"{' '.join(launch.command)} in {launch.image}",
        otherwise=f"the reason is in the lines above; to look around: {around}",
    )
