"""One connection to a registry: sends calls, and says in its errors what was asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import requests

from pipeline.errors import UsageError, WorldError
from pipeline.world.registry_login import Authorization, Login, Scopes, is_loopback
from pipeline.world.registry_retries import ATTEMPTS, CONNECT_TIMEOUT_S, patiently

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Call:
    """One question to the registry; `doing` is the verb phrase its errors use."""

    method: str
    url: str
    doing: str
    scopes: Scopes = ()
    accepts: tuple[int, ...] = (200,)
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    stream: bool = False
    repeatable: bool = True
    timeout_s: float = 10.0


class BlobStream:
    """A blob on its way from one registry to another; hashed as it passes."""

    def __init__(self, response: requests.Response, digest: str, where: str) -> None:
        self._response = response
        self._digest = digest
        self._where = where
        self.passed_bytes = 0

    def body(self) -> BlobStream | Iterator[bytes]:
        """Itself where the length is known, so that it is sent with Content-Length, else chunks."""
        known = "Content-Length" in self._response.headers
        return self if known else iter(self)

    def __len__(self) -> int:
        return int(self._response.headers["Content-Length"])

    def __iter__(self) -> Iterator[bytes]:
        seen = hashlib.sha256()
        try:
            for chunk in self._response.iter_content(CHUNK_BYTES):
                seen.update(chunk)
                self.passed_bytes += len(chunk)
                yield chunk
        except requests.RequestException as error:
            raise WorldError(
                f"could not read blob {self._digest} to its end:"
                f" stopped after {self.passed_bytes} bytes",
                where=self._where,
                details=_without_queries(str(error)),
                hint="run the same command again; blobs that arrived are not sent twice",
            ) from error
        if f"sha256:{seen.hexdigest()}" != self._digest:
            raise not_what_was_asked(
                self._where, f"blob {self._digest}", f"sha256:{seen.hexdigest()}"
            )


Body = bytes | BlobStream | Iterator[bytes]


class Connection:
    """Sends calls to one host: retries, login, and errors that say what was asked."""

    def __init__(self, base: str, config_path: Path, sleep: Callable[[float], None]) -> None:
        if not re.fullmatch(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?", base):
            raise UsageError(
                "opening a registry: its base is not a plain host[:port]",
                hint="repository paths belong to the calls, credentials to `docker login`",
            )
        self.host = base
        self.is_local = is_loopback(base)
        self._origin = f"{'http' if self.is_local else 'https'}://{base}"
        self._sleep = sleep
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "flagrelease-pipeline"
        # A blob is compared with its digest as stored, so nobody may decode it on the way.
        self._session.headers["Accept-Encoding"] = "identity"
        # Proxy variables of the environment must not catch loopback traffic.
        self._session.trust_env = not self.is_local
        self._login = Login(base, config_path, self._session)

    def close(self) -> None:
        self._session.close()

    def ask(self, call: Call) -> requests.Response:
        try:
            attempts = ATTEMPTS if call.repeatable else 1
            response = patiently(lambda: self._attempt(call), attempts, self._sleep)
        except requests.RequestException as error:
            raise self.could_not(
                call,
                f"no answer: {type(error).__name__}",
                details=self._clean(str(error)),
            ) from error
        if response.status_code not in call.accepts:
            with closing(response):
                raise self._refused(call, response)
        return response

    def _attempt(self, call: Call) -> requests.Response:
        response = self._once(call)
        # A body that was streamed is gone and cannot be sent a second time.
        resendable = call.body is None or isinstance(call.body, bytes)
        # An upload location or redirect may lead to another host, which must not learn who we are.
        may_log_in = resendable and self._is_ours(response.url)
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status_code != 401 or not may_log_in:
            return response
        if not self._login.answer(challenge, call.scopes):
            return response
        response.close()
        return self._once(call)

    def _once(self, call: Call) -> requests.Response:
        url = urljoin(self._origin, call.url)
        header = self._login.header(call.scopes) if self._is_ours(url) else None
        return self._session.request(
            call.method,
            url,
            params=call.params,
            data=call.body,
            headers=call.headers,
            auth=Authorization(header),
            stream=call.stream,
            timeout=(CONNECT_TIMEOUT_S, call.timeout_s),
        )

    def _is_ours(self, url: str) -> bool:
        return url.startswith(f"{self._origin}/")

    def _refused(self, call: Call, response: requests.Response) -> WorldError:
        answer = f"{response.status_code} {response.reason}"
        said = self._clean(_said(response))
        if response.status_code not in (401, 403):
            return self.could_not(call, f"it answered {answer}", details=said)
        return WorldError(
            f"{self._login.account} may not {call.doing}: the registry answered {answer}",
            where=self.host,
            details=said,
            hint=f"`docker login {self.host}` with an account that may;"
            f" only `auths` in {self._login.config_path} is read, no credential helper",
        )

    def could_not(self, call: Call, came: str, *, details: str = "") -> WorldError:
        return WorldError(
            f"could not ask the registry to {call.doing}: {came}",
            where=self.host,
            details=details,
            hint=self._hint(came),
        )

    def _hint(self, came: str) -> str:
        if "answered 412" in came:
            return "a policy of the registry blocks it: immutable tag, scan or signature gate"
        if "answered" in came:
            return "try again later; if it stays so, look at the log of the registry"
        if self.is_local:
            return "is it running? `./bootstrap` starts the local one"
        return "check the network and proxy of this machine, and the `registry` of the target"

    def _clean(self, text: str) -> str:
        return _without_queries(self._login.clean(text))


def _said(response: requests.Response) -> str:
    """The registry's own words: code and message of each of its errors."""
    try:
        errors = response.json()["errors"]
        words = [f"{error['code']}: {error.get('message', '')}" for error in errors]
    except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
        return ""
    return "\n".join(words)[:500]


def _without_queries(text: str) -> str:
    """Addresses of uploads and redirects carry keys in their query."""
    return re.sub(r"//[^/@\s]+@", "//***@", re.sub(r"\?[^\s)'\"]+", "?…", text))


def not_what_was_asked(host: str, asked: str, came: str) -> WorldError:
    return WorldError(
        f"asking the registry for {asked}: it gave {came}",
        where=host,
        hint="its storage or a proxy on the way changes content; do not use this image",
    )
