"""Logging in to a registry: what `docker login` left, and the tokens it is traded for."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from pipeline.errors import WorldError
from pipeline.world.registry_retries import CONNECT_TIMEOUT_S, is_passing_answer

Scopes = tuple[str, ...]


def to_pull(repository: str) -> Scopes:
    return (f"repository:{repository}:pull",)


def to_push(repository: str) -> Scopes:
    return (f"repository:{repository}:pull,push",)


class Authorization(AuthBase):
    """Our header or none; given always, so that requests never looks into .netrc."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


class Login:
    """Answers the challenges of one host; knows every secret that was sent to it."""

    def __init__(self, host: str, config_path: Path, session: requests.Session) -> None:
        self.config_path = config_path
        self._session = session
        pair = read_credentials(config_path, host)
        self._basic = f"Basic {pair}" if pair else None
        self._secrets = [pair, _password(pair)] if pair else []
        self._headers: dict[Scopes, str] = {}

    @property
    def account(self) -> str:
        return "this account" if self._basic else "an anonymous client"

    def header(self, scopes: Scopes) -> str | None:
        return self._headers.get(scopes)

    def answer(self, challenge: str, scopes: Scopes) -> bool:
        """Take up the challenge of a 401; False if there is nothing new to try."""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "bearer":
            header = self._bearer(scopes, dict(re.findall(r'(\w+)="([^"]*)"', rest)))
        else:
            header = self._basic if scheme.lower() == "basic" else None
        if header is None or header == self._headers.get(scopes):
            return False
        self._headers[scopes] = header
        return True

    def clean(self, text: str) -> str:
        """A text from outside, without what we sent in confidence."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _bearer(self, scopes: Scopes, challenge: Mapping[str, str]) -> str | None:
        realm = challenge.get("realm", "")
        if not realm.startswith("https://") and not is_loopback(urlsplit(realm).netloc):
            return None
        # A mount reads one repository and writes another; challenges tend to name only the latter.
        scope = list(scopes) or challenge.get("scope", "").split()
        response = self._session.get(
            realm,
            params={"service": challenge.get("service", ""), "scope": scope},
            auth=Authorization(self._basic),
            timeout=(CONNECT_TIMEOUT_S, 10.0),
        )
        if is_passing_answer(response):
            raise requests.ConnectionError(f"the token server answered {response.status_code}")
        answer = response.json() if response.status_code == 200 else None
        named = answer if isinstance(answer, dict) else {}
        token = named.get("token") or named.get("access_token")
        if not isinstance(token, str) or not token:
            return None
        self._secrets.append(token)
        return f"Bearer {token}"


def read_credentials(config: Path, host: str) -> str | None:
    """Base64 of user:password for a host, from `auths` of a Docker client configuration."""
    try:
        auths = json.loads(config.read_bytes()).get("auths", {})
        entries = (auths.get(name, {}) for name in (host, f"https://{host}"))
        pair: str | None = next((entry["auth"] for entry in entries if entry.get("auth")), None)
        if pair:
            _password(pair)
        return pair
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError):
        # The cause quotes the file, and with it the secret.
        raise WorldError(
            f"reading credentials for {host}: the file is not a Docker client configuration",
            where=str(config),
            hint=f"mend it, or remove it and run `docker login {host}`",
        ) from None


def login_file(host: str) -> bytes:
    """A Docker client configuration that knows this host alone, with what `docker login` left for it."""
    pair = read_credentials(docker_config_path(), host)
    return json.dumps({"auths": {host: {"auth": pair}} if pair else {}}).encode()


def _password(pair: str) -> str:
    """Raises ValueError unless `pair` is base64 of user:password."""
    _, _, password = base64.b64decode(pair, validate=True).decode().partition(":")
    if not password:
        raise ValueError("no user:password")
    return password


def docker_config_path() -> Path:
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
