"""`Run` of the matrix as the line a reader types and as what docker-py takes. Pure; the two are tested side by side."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.chip import Run


def command_line(
    run: Run, *, image: str, name: str, command: Sequence[str], volumes: Mapping[str, str]
) -> str:
    """`docker run …` for a card: one argument a line."""
    flags = ["--init", "--detach", f"--name {shlex.quote(name)}", f"--network {run.network}"]
    flags += [f"--ipc {shlex.quote(run.ipc)}"] if run.ipc else []
    flags += [f"--uts {shlex.quote(run.uts)}"] if run.uts else []
    flags += [f"--shm-size {run.shm_size}"] if run.shm_size else []
    flags += [f"--gpus {run.gpus}"] if run.gpus else []
    flags += ["--privileged"] if run.privileged else []
    flags += [f"--device {shlex.quote(device)}" for device in run.devices]
    flags += [f"--security-opt {shlex.quote(option)}" for option in run.security_opt]
    flags += [f"--ulimit {name}={value}" for name, value in sorted(run.ulimits.items())]
    flags += [f"--env {key}={shlex.quote(value)}" for key, value in sorted(run.environment.items())]
    flags += [f"--volume {shlex.quote(volume)}" for volume in run.volumes]
    flags += [f"--volume {shlex.quote(f'{host}:{inside}')}" for host, inside in volumes.items()]
    return " \\\n  ".join(["docker run", *flags, f"{image} {shlex.join(command)}"])


def engine_arguments(run: Run, *, volumes: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments of docker-py's `containers.run` that mean the same."""
    arguments: dict[str, Any] = {
        "init": True,
        "detach": True,
        "network_mode": run.network,
        "privileged": run.privileged,
        "environment": dict(run.environment),
        "volumes": [*run.volumes, *(f"{host}:{inside}" for host, inside in volumes.items())],
        "devices": [_device(device) for device in run.devices],
        "security_opt": list(run.security_opt),
        "ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in sorted(run.ulimits.items())
        ],
    }
    if run.ipc:
        arguments["ipc_mode"] = run.ipc
    if run.uts:
        arguments["uts_mode"] = run.uts
    if run.shm_size:
        arguments["shm_size"] = run.shm_size
    if run.gpus:
        count = -1 if run.gpus == "all" else int(run.gpus)
        arguments["device_requests"] = [{"Driver": "", "Count": count, "Capabilities": [["gpu"]]}]
    return arguments


def _device(device: str) -> str:
    return device if ":" in device else f"{device}:{device}:rwm"
