"""Why a served stack came to its end: what the engine, the kernel and the server's log say of it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.errors import PipelineError, StageRefusedError, WorldError
from pipeline.world.causes import AGAIN, errors_in, known_cause
from pipeline.world.engine_container import OOM, Container

LOOKED_AT = 1000  # lines of the log
# How often the kernel ended a process of this container for want of memory; version 2 of control groups, and 1.
MEMORY_EVENTS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
MEMORY = (
    "end what else uses this machine's memory (free -g and docker stats show it), or serve fewer at a time "
    "(--jobs, --parallel)"
)


@dataclass(frozen=True, kw_only=True)
class End:
    """What is known of it. A fault of the machine is no verdict on the image."""

    seen: str  # beside the log, in words; "" for nothing
    details: str
    advice: str  # "" for a fault that is not known
    is_of_machine: bool

    def error(self, message: str, *, where: str, otherwise: str = "") -> PipelineError:
        """`otherwise`: what to do about a fault that is not known."""
        kind = WorldError if self.is_of_machine else StageRefusedError
        advice = f"{self.advice}; {AGAIN}" if self.is_of_machine else self.advice
        told = f"{message}: {self.seen}" if self.seen else message
        return kind(told, where=where, details=self.details, hint=advice or otherwise)


def end_of(container: Container, log: str) -> End:
    log = "\n".join(line for line in log.splitlines() if not line.startswith("nanobind:"))
    if ending := container.ending():
        return End(
            seen=f"its container {ending}",
            details=errors_in(log),
            advice=MEMORY if OOM in ending else "docker events --since 10m says who ended it",
            is_of_machine=True,
        )
    if kills := memory_kills(container):
        return End(
            seen=f"the kernel ended {kills} of its processes {OOM}",
            details=errors_in(log),
            advice=MEMORY,
            is_of_machine=True,
        )
    cause = known_cause(log)
    return End(
        seen="",
        details=errors_in(log),
        advice=cause.advice if cause else "",
        is_of_machine=cause is not None and cause.is_of_machine,
    )


def memory_kills(container: Container) -> int:
    """Processes of a running container that the kernel ended: memory ran out, the container's or the machine's."""
    _, output = container.execute(["cat", *MEMORY_EVENTS])
    return sum(map(int, re.findall(r"^oom_kill (\d+)$", output, flags=re.MULTILINE)))


def tail(container: Container, path: str, lines: int) -> str:
    """The last lines of a file inside; "" where there is no such file or the container has ended."""
    if not container.running():
        return ""
    code, output = container.execute(["tail", "-n", str(lines), path])
    return output.strip() if code == 0 else ""
