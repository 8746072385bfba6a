"""Runs inside the sandbox container, as /work/runner.py: every program of /work/task.json in a process of its own.

Only the standard library, and no module of ours. Prints one line: a JSON list of "passed", "failed", "timed out" or
"killed" (out of memory), in the order of the programs.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

TASK = Path("/work/task.json")
REACHED_ITS_END = 83  # a program that calls exit(0) before its tests has not passed
FILE_BYTES = 16 << 20
WALL_FACTOR = 3
POLL_S = 0.005
WRAPPER = f"""
import os, sys
with open(sys.argv[1], encoding="utf-8") as file:
    source = file.read()
exec(compile(source, "<program>", "exec"), {{"__name__": "__main__"}})
os._exit({REACHED_ITS_END})
"""


def outcomes(programs: Sequence[str], cpu_s: int) -> list[str]:
    """As many at once as there are processors."""
    found = dict.fromkeys(range(len(programs)), "failed")
    waiting = list(reversed(range(len(programs))))
    running: dict[int, tuple[int, float]] = {}  # pid → program, when it is ended
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < (os.cpu_count() or 1):
                number = waiting.pop()
                path = Path(folder, f"{number}.py")
                path.write_text(programs[number], encoding="utf-8")
                running[start(path, cpu_s)] = (number, time.monotonic() + WALL_FACTOR * cpu_s)
            for pid, (number, deadline) in list(running.items()):
                result = ended(pid, deadline)
                if result is not None:
                    found[number] = result
                    del running[pid]
            time.sleep(POLL_S)
    return [found[number] for number in range(len(programs))]


def start(path: Path, cpu_s: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.chdir(path.parent)
        os.execv(sys.executable, [sys.executable, "-I", "-c", WRAPPER, str(path)])
    finally:
        os._exit(1)


def ended(pid: int, deadline: float) -> str | None:
    """None while it runs. What it started in its group goes with it; the rest ends with the container."""
    is_late = time.monotonic() > deadline
    if is_late:
        os.killpg(pid, signal.SIGKILL)
    done, status = os.waitpid(pid, 0 if is_late else os.WNOHANG)
    if done == 0:
        return None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    if code == REACHED_ITS_END:
        return "passed"
    if is_late or code == -signal.SIGXCPU:
        return "timed out"
    return "killed" if code == -signal.SIGKILL else "failed"


def main() -> None:
    task = json.loads(TASK.read_text("utf-8"))
    sys.stdout.write(json.dumps(outcomes(task["programs"], task["cpu_s"])) + "\n")


if __name__ == "__main__":
    main()
