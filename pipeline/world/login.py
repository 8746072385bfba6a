"""`docker login` without a terminal, for machines that start from nothing. Docker keeps what it was told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable

from pipeline.errors import WorldError

USER, PASSWORD = "FLAGRELEASE_REGISTRY_USER", "FLAGRELEASE_REGISTRY_PASSWORD"


def login(hosts: Iterable[str]) -> tuple[str, ...]:
    """The registries logged in to; none when the environment has no user: the machine may be logged in already.

    Raises WorldError when a password is missing or a registry refuses it. The password goes through standard input.
    """
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if not user:
        return ()
    if not password:
        raise WorldError(
            f"{USER} is set, {PASSWORD} is not", where="login", hint="set both, or none"
        )
    done = tuple(dict.fromkeys(hosts))
    for host in done:
        command = ["docker", "login", host, "--username", user, "--password-stdin"]
        ended = subprocess.run(command, input=password, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise WorldError(
                f"the registry did not let {user} in",
                where=host,
                details=ended.stderr.strip()[-500:],
                hint=f"check {USER} and {PASSWORD}; a robot account of Harbor is called robot$NAME",
            )
    return done
