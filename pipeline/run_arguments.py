"""`Run` of the matrix as the line a reader types and as what docker-py takes. Pure; the two are tested side by side."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.chip import Run


def command_line(
    run: Run,
    *,
    image: str,
    name: str,
    command: Sequence[str],
    volumes: Mapping[str, str],
    is_removed_when_stopped: bool = False,
) -> str:
    """`docker run …` for a card: one argument a line."""
    flags = ["--rm"] if is_removed_when_stopped else []
    flags += ["--init", "--detach", f"--name {shlex.quote(name)}", f"--network {run.network}"]
    for flag, given in (
        ("runtime", run.runtime),
        ("ipc", run.ipc),
        ("pid", run.pid),
        ("uts", run.uts),
        ("user", run.user),
        ("shm-size", run.shm_size),
        ("gpus", run.gpus),
    ):
        flags += [f"--{flag} {shlex.quote(given)}"] if given else []
    flags += ["--privileged"] if run.privileged else []
    flags += [f"--group-add {shlex.quote(group)}" for group in run.group_add]
    flags += [f"--cap-add {shlex.quote(capability)}" for capability in run.cap_add]
    flags += [f"--device {shlex.quote(device)}" for device in run.devices]
    flags += [f"--security-opt {shlex.quote(option)}" for option in run.security_opt]
    flags += [f"--ulimit {name}={value}" for name, value in sorted(run.ulimits.items())]
    flags += [f"--env {key}={shlex.quote(value)}" for key, value in sorted(run.environment.items())]
    flags += [f"--tmpfs {shlex.quote(mount)}" for mount in run.tmpfs]
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
    given = {
        "runtime": run.runtime,
        "ipc_mode": run.ipc,
        "pid_mode": run.pid,
        "uts_mode": run.uts,
        "user": run.user,
        "shm_size": run.shm_size,
        "group_add": list(run.group_add),
        "cap_add": list(run.cap_add),
        "tmpfs": {path: options for path, _, options in (m.partition(":") for m in run.tmpfs)},
    }
    arguments |= {name: value for name, value in given.items() if value}
    if run.gpus:
        count = -1 if run.gpus == "all" else int(run.gpus)
        arguments["device_requests"] = [{"Driver": "", "Count": count, "Capabilities": [["gpu"]]}]
    return arguments


def _device(device: str) -> str:
    return device if ":" in device else f"{device}:{device}:rwm"
