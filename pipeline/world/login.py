"""`docker login` without a terminal, for machines that start from nothing. Docker keeps what it was told."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pipeline.errors import WorldError
from pipeline.world.command import run

USER, PASSWORD = "FLAGRELEASE_REGISTRY_USER", "FLAGRELEASE_REGISTRY_PASSWORD"


def login(hosts: Iterable[str]) -> tuple[str, ...]:
    """The registries logged in to; none when the environment has no user: the machine may be logged in already.

    Raises WorldError when a password is missing, CommandError when a registry refuses it.
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
        run(
            ["docker", "login", host, "--username", user, "--password-stdin"],
            doing=f"logging in to {host}",
            hint=f"check {USER} and {PASSWORD}; a robot account of Harbor is called robot$NAME",
            given=password,
            timeout_s=60,
        )
    return done
