"""A Docker Engine beside the machine's, for what may not be done to that one."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def own_engine(folder: Path) -> Iterator[str]:
    """One without a network; its address. The folder's path is short: that of a socket has a limit."""
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        pytest.skip("an engine of its own needs dockerd and root")
    address = f"unix://{folder}/docker.sock"
    words = [
        # In a network of its own: without a bridge, an engine takes the machine's docker0 away.
        *("unshare", "--net", "dockerd", "--host", address, "--data-root", f"{folder}/data"),
        *("--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"),
        *("--containerd-namespace", "doctor", "--containerd-plugins-namespace", "doctor-plugins"),
        *("--bridge", "none", "--iptables=false", "--ip-masq=false"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while b"API listen on" not in (folder / "log").read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail((folder / "log").read_text())
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)
