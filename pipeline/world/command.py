"""The one door to other programs: run, stream, log, and fail with everything a reader needs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import CommandError, WorldError
from pipeline.world.causes import of_machine

_SECRET = re.compile(
    r"(?i)(password|token|secret|api[_-]?key|bearer)(\"?[=: ]+)\S+|(://[^/\s:@]+:)[^@\s]+@"
)
LAST_LINES = 20
# A signal is given to the whole process, and with it to what its threads have started.
_running = set["subprocess.Popen[str]"]()


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a program printed (stdout and stderr in order) and how long it took."""

    output: str
    seconds: float
    exit_code: int = 0


def hide_secrets(text: str) -> str:
    return _SECRET.sub(lambda hit: f"{hit[3]}***@" if hit[3] else f"{hit[1]}{hit[2]}***", text)


def run(
    arguments: Sequence[str | Path],
    *,
    doing: str,
    hint: str,
    log: Path | None = None,
    environment: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout_s: float = 3600,
    answers: Sequence[int] = (0,),
    given: str | None = None,
) -> Completed:
    """Run a program to its end. Raises CommandError when it fails, WorldError when it is not installed.

    `answers` are exit codes that are no failure; `given` is a short text for its standard input, where no argument may
    show it.

    The program gets a process group of its own, so that an interrupt ends its children too.
    """
    words = [str(argument) for argument in arguments]
    # uv lies beside the Python that runs us, whether or not its environment is activated.
    program = shutil.which(words[0]) or shutil.which(words[0], path=Path(sys.executable).parent)
    if program is None:
        raise WorldError(f"{words[0]} is not installed", where=doing, hint=hint)
    started = time.monotonic()
    process = subprocess.Popen(
        [*_ends_with_us(), program, *words[1:]],
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
        start_new_session=True,
    )
    _running.add(process)
    is_late = threading.Event()
    timer = threading.Timer(timeout_s, _end_late, (process, is_late))
    try:
        timer.start()
        if process.stdin:
            with suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(given or "")
        output = _stream(process, log, on_line)
    except BaseException:
        _end(process)
        raise
    finally:
        timer.cancel()
        _running.discard(process)
        if process.stdout:
            process.stdout.close()
    seconds = time.monotonic() - started
    if process.returncode not in answers or is_late.is_set():
        last = "\n".join(output.splitlines()[-LAST_LINES:])
        raise CommandError(
            f"a command was ended at its limit of {timeout_s:g} s"
            if is_late.is_set()
            else f"a command ended with exit code {process.returncode} after {seconds:.1f} s",
            where=doing,
            details="\n".join(
                [
                    f"$ {hide_secrets(shlex.join(words))}",
                    *([f"log: {log}"] if log else []),
                    *([hide_secrets(last)] if last else []),
                ]
            ),
            hint=of_machine(last) or hint,
        )
    return Completed(output=output, seconds=seconds, exit_code=process.returncode)


def end_running() -> None:
    """End the programs of every thread, whose `run` then fails; for a process that is about to end."""
    for process in tuple(_running):
        _end(process)


def _ends_with_us() -> list[str]:
    """The kernel ends the program when we are killed and cannot (setpriv is in Debian's util-linux).

    Or when the thread that started it ends; `run` waits in that very thread.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


def _stream(
    process: subprocess.Popen[str],
    log: Path | None,
    on_line: Callable[[str], None] | None,
) -> str:
    lines = []
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    with (log or Path(os.devnull)).open("a", encoding="utf-8") as file:
        for line in process.stdout or ():
            lines.append(line)
            file.write(line)
            if on_line:
                on_line(line.rstrip())
    process.wait()
    return "".join(lines)


def _end_late(process: subprocess.Popen[str], is_late: threading.Event) -> None:
    if process.poll() is None:
        is_late.set()
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupt, then terminate, then kill; a child that outlives its parent is killed too."""
    for sign, patience_s in ((signal.SIGINT, 3), (signal.SIGTERM, 3)):
        with suppress(subprocess.TimeoutExpired):
            _signal(process, sign)
            process.wait(timeout=patience_s)
            break
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[str], sign: signal.Signals) -> None:
    """To the whole process group, which is there as long as any member is."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, sign)
