"""A container: what it is started with, and while it runs its commands, state and processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker.errors
from docker.models.containers import Container as DockerContainer
from docker.types import DeviceRequest, Ulimit

from pipeline.errors import WorldError
from pipeline.run_arguments import engine_arguments
from pipeline.world.engine_errors import asking

if TYPE_CHECKING:
    # A command that starts no container does not load the matrix's types.
    from pipeline.chip import Run

ENDED_HINT = "the container ended or was removed; docker events --since 10m says by whom"
OOM = "for want of memory (OOM)"


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


def start_arguments(
    run: Run, *, volumes: Mapping[str, str], user: str | None, limits: Limits | None
) -> dict[str, Any]:
    """Keyword arguments of docker-py's `containers.create`."""
    arguments = engine_arguments(run, volumes=volumes)
    arguments["ulimits"] = [Ulimit(**limit) for limit in arguments["ulimits"]]
    if "device_requests" in arguments:
        arguments["device_requests"] = [DeviceRequest(**r) for r in arguments["device_requests"]]
    if user is not None:
        arguments["user"] = user
    return arguments | (limits.arguments() if limits else {})


class Container:
    """A running container: commands inside it, its state, its files."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container
        self.name = str(container.name)

    def execute(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command inside, without a shell profile, for as long as it takes: exit code and output."""
        with asking(f"running {command[0]} in {self.name}", ENDED_HINT):
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
        with asking(f"waiting for {self.name}", ENDED_HINT):
            code = int(self._container.wait()["StatusCode"])
            return code, bytes(self._container.logs()).decode(errors="replace")

    def running(self) -> bool:
        return not self.ending()

    def ending(self) -> str:
        """How it ended, in words; "" while it runs."""
        with asking(f"looking at {self.name}", ENDED_HINT):
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
        with asking(f"listing the processes of {self.name}", ENDED_HINT):
            table = self._container.top()
        column = table["Titles"].index("CMD")
        return [row[column] for row in table["Processes"]]
