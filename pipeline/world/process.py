"""Who started something: told apart from a later process with the same number, on this host."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def me() -> str:
    """<host>:<pid>:<start ticks> of this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_ticks(os.getpid())}"


def is_over(owner: str) -> bool:
    """Whether the process that `me` named ran here and runs no more; of other hosts we cannot tell."""
    if owner.count(":") != 2:
        return False  # written by another version, which may still run
    host, pid, ticks = owner.split(":")
    return host == socket.gethostname() and _start_ticks(int(pid)) != ticks


def _start_ticks(pid: int) -> str:
    """Field 22 of /proc/<pid>/stat."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
