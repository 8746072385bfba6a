"""What `docker login` left for a host: in the client's configuration, or in the credential helper that it names."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from json import JSONDecoder
from pathlib import Path
from shutil import which
from typing import Any

from pipeline.errors import WorldError
from pipeline.world.command import run

IDENTITY = "<token>"  # the user name with which helpers mark a token that is traded for others
NOT_FOUND = "credentials not found"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    username: str
    secret: str = field(repr=False)

    @property
    def is_identity_token(self) -> bool:
        return self.username == IDENTITY

    @property
    def pair(self) -> str:
        """Base64 of user:password, as a Basic header and the configuration hold it."""
        return base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


def read_credentials(config: Path, host: str) -> Credentials | None:
    """In the order of Docker's own client: the helper of this host, the helper of all, then `auths`.

    A helper that is not installed is passed over: the file came from another machine, and many images are public.
    Raises WorldError for a configuration that cannot be read or a helper that fails; neither is quoted.
    """
    try:
        content = json.loads(config.read_bytes())
        helpers = (content.get("credHelpers", {}).get(host), content.get("credsStore"))
        entries = [_entry(content.get("auths", {}), name) for name in _names(host)]
        written = next(filter(None, map(_written, entries)), None)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError):
        # The cause quotes the file, and with it the secret.
        raise WorldError(
            f"reading credentials for {host}: the file is not a Docker client configuration",
            where=str(config),
            hint=f"mend it, or remove it and run `docker login {host}`",
        ) from None
    programs = [f"docker-credential-{helper}" for helper in dict.fromkeys(filter(None, helpers))]
    there = filter(which, programs)
    asked = (_ask(program, name) for program in there for name in _names(host))
    return next(filter(None, asked), written)


def login_file(host: str) -> bytes:
    """A Docker client configuration that knows this host alone, with what `docker login` left for it."""
    found = read_credentials(docker_config_path(), host)
    if found is None:
        return json.dumps({"auths": {}}).encode()
    entry = {"identitytoken": found.secret} if found.is_identity_token else {"auth": found.pair}
    return json.dumps({"auths": {host: entry}}).encode()


def docker_config_path() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def _names(host: str) -> tuple[str, ...]:
    return host, f"https://{host}"


def _entry(auths: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    entry: Mapping[str, Any] = auths.get(name, {})
    return entry


def _written(entry: Mapping[str, Any]) -> Credentials | None:
    """Raises ValueError unless `auth` is base64 of user:password."""
    if token := entry.get("identitytoken"):
        return Credentials(username=IDENTITY, secret=token)
    if entry.get("username") and entry.get("password"):
        return Credentials(username=entry["username"], secret=entry["password"])
    if not entry.get("auth"):
        return None
    username, _, secret = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    if not secret:
        raise ValueError("no user:password")
    return Credentials(username=username, secret=secret)


def _ask(program: str, name: str) -> Credentials | None:
    """The host goes to the helper's input and the secret comes from its output; neither is logged or an argument."""
    doing, hint = (
        f"reading credentials for {name}",
        "try `docker login`, which asks the same helper",
    )
    output = run([program, "get"], doing=doing, hint=hint, given=name, answers=(0, 1)).output
    if NOT_FOUND in output.lower():
        return None
    try:
        answer, _ = JSONDecoder().raw_decode(output, output.index("{"))
        return Credentials(username=answer["Username"], secret=answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise WorldError(f"{doing}: {program} gave none", where=program, hint=hint) from None
