"""Logging in to a registry: its challenges, and the tokens that credentials are traded for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote, urlsplit

import requests
from requests.auth import AuthBase

from pipeline.world.registry_credentials import read_credentials
from pipeline.world.registry_retries import CONNECT_TIMEOUT_S, is_passing_answer

Scopes = tuple[str, ...]
# For interfaces that give no challenge, as Harbor's own: the password goes with the first request.
UNASKED: Scopes = ("unasked",)


def to_pull(repository: str) -> Scopes:
    return (f"repository:{repository}:pull",)


def to_push(repository: str) -> Scopes:
    return (f"repository:{repository}:pull,push",)


def to_delete(repository: str) -> Scopes:
    return (f"repository:{repository}:pull,push,delete",)


class Authorization(AuthBase):
    """Our header or none; given always, so that requests never looks into .netrc."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._header:
            request.headers["Authorization"] = self._header
        return request


class Login:
    """Answers the challenges of one host, for all threads that ask it; knows every secret that was sent to it."""

    def __init__(self, host: str, config_path: Path, session: requests.Session) -> None:
        self.config_path = config_path
        self._session = session
        self._credentials = found = read_credentials(config_path, host)
        self._basic = f"Basic {found.pair}" if found and not found.is_identity_token else None
        self._secrets = [found.pair, *_forms(found.secret)] if found else []
        self._headers: dict[Scopes, str] = {UNASKED: self._basic} if self._basic else {}
        self._takes_basic = False

    @property
    def account(self) -> str:
        return "this account" if self._credentials else "an anonymous client"

    def header(self, scopes: Scopes) -> str | None:
        return self._basic if self._takes_basic else self._headers.get(scopes)

    def answer(self, challenge: str, scopes: Scopes, sent: str | None) -> bool:
        """Take up the challenge of a 401 to the header that was sent; False if there is nothing new to try."""
        if self.header(scopes) not in (None, sent):
            return True  # another thread has logged in meanwhile
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "bearer":
            header = self._bearer(scopes, dict(re.findall(r'(\w+)="([^"]*)"', rest)))
        else:
            header = self._basic if scheme.lower() == "basic" else None
        if header is None or header == sent:
            return False
        self._takes_basic = header == self._basic
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
        response = self._traded(realm, challenge.get("service", ""), scope)
        if is_passing_answer(response):
            raise requests.ConnectionError(f"the token server answered {response.status_code}")
        answer = response.json() if response.status_code == 200 else None
        named = answer if isinstance(answer, dict) else {}
        token = named.get("token") or named.get("access_token")
        if not isinstance(token, str) or not token:
            return None
        self._secrets.append(token)
        return f"Bearer {token}"

    def _traded(self, realm: str, service: str, scope: list[str]) -> requests.Response:
        """The token server's answer; an identity token is sent as OAuth2's refresh token."""
        timeout = (CONNECT_TIMEOUT_S, 10.0)
        if self._credentials and self._credentials.is_identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.secret,
                "client_id": "flagrelease-pipeline",
                "service": service,
                "scope": " ".join(scope),
            }
            return self._session.post(realm, data=form, auth=Authorization(None), timeout=timeout)
        return self._session.get(
            realm,
            params={"service": service, "scope": scope},
            auth=Authorization(self._basic),
            timeout=timeout,
        )


def _forms(secret: str) -> list[str]:
    """A secret as it may come back, longest first: quoted for an address or for JSON."""
    forms = {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]}
    return sorted(forms, key=len, reverse=True)


def is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False
