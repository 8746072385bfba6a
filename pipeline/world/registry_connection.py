"""One connection to a registry: sends calls, and says in its errors what was asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from urllib.parse import urljoin

import requests

from pipeline.errors import NoAnswerError, NotAllowedError, UsageError, WorldError
from pipeline.world.registry_login import Authorization, Login, Scopes, is_loopback
from pipeline.world.registry_retries import (
    CONNECT_TIMEOUT_S,
    is_passing_answer,
    is_passing_fault,
    patiently,
    retry_after_s,
)

CERTIFICATES = Path("/etc/docker/certs.d")  # where the engine looks for them too


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
    body: bytes | None = None
    stream: bool = False
    once: bool = False  # it may have had its effect although no answer came
    timeout_s: float = 10.0


@dataclass(frozen=True, kw_only=True)
class Greeting:
    """What a registry says first. `lets_in`: it takes this account, or asks for none."""

    lets_in: bool
    time: datetime | None  # its clock, to the second


class PassingError(NoAnswerError):
    """No answer, but later there may be one."""

    def __init__(self, because: WorldError, wait_s: float = 0.0) -> None:
        super().__init__(
            because.message, where=because.where, details=because.details, hint=because.hint
        )
        self.wait_s = wait_s  # at least, says the registry


class Connection:
    """Sends calls to one host: retries, login, and errors that say what was asked."""

    def __init__(
        self,
        base: str,
        config_path: Path,
        sleep: Callable[[float], None],
        certificates: Path = CERTIFICATES,
        login: Login | None = None,
    ) -> None:
        """`login`: that of another connection to this host, whose tokens are good here too."""
        if not re.fullmatch(r"[\w.-]+(:\d+)?|\[[0-9a-fA-F:]+\](:\d+)?", base):
            raise UsageError(
                "opening a registry: its base is not a plain host[:port]",
                hint="repository paths belong to the calls, credentials to `docker login`",
            )
        self.host = base
        self.is_local = is_loopback(base)
        self.sleep = sleep
        self.lacks_referrers = False  # as far as it has been asked
        self._authority = certificates / base / "ca.crt"
        has_authority = self._authority.is_file()
        scheme = "http" if self.is_local and not has_authority else "https"
        self._origin = f"{scheme}://{base}"
        self._session = requests.Session()
        self._session.headers["User-Agent"] = "flagrelease-pipeline"
        # A blob is compared with its digest as stored, so nobody may decode it on the way.
        self._session.headers["Accept-Encoding"] = "identity"
        # Who sends Harbor's cookie back is asked for the token of a web page.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Proxy variables of the environment must not catch loopback traffic.
        self._session.trust_env = not self.is_local
        # Given with every request, for else a bundle of the environment goes before it.
        self._verify = str(self._authority) if has_authority else None
        self.login = login or Login(base, config_path, self._session)

    def close(self) -> None:
        self._session.close()

    def ask(self, call: Call) -> requests.Response:
        """An answer that the call accepts. Raises NotAllowedError, or NoAnswerError for everything else."""
        try:
            response = patiently(lambda: self._attempt(call), self.sleep, once=call.once)
        except requests.RequestException as error:
            fault = self.could_not(
                call, f"no answer: {type(error).__name__}", details=self._clean(str(error))
            )
            raise (PassingError(fault) if is_passing_fault(error) else fault) from error
        if response.status_code in call.accepts:
            if call.method in ("GET", "HEAD") and _is_page(response):
                raise self.could_not(call, f"it answered {response.status_code} with a web page")
            return response
        with closing(response):
            refused = self._refused(call, response)
            if is_passing_answer(response):
                refused = PassingError(refused, retry_after_s(response))
            raise refused

    def _attempt(self, call: Call) -> requests.Response:
        sent = self.login.header(call.scopes)
        response = self._once(call, sent)
        # An upload location or redirect may lead to another host, which must not learn who we are.
        may_log_in = self._is_ours(response.url)
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status_code != 401 or not may_log_in:
            return response
        if not self.login.answer(challenge, call.scopes, sent):
            return response
        response.close()
        return self._once(call, self.login.header(call.scopes))

    def _once(self, call: Call, header: str | None) -> requests.Response:
        url = urljoin(self._origin, call.url)
        return self._session.request(
            call.method,
            url,
            params=call.params,
            data=call.body,
            headers=call.headers,
            auth=Authorization(header if self._is_ours(url) else None),
            stream=call.stream,
            timeout=(CONNECT_TIMEOUT_S, call.timeout_s),
            verify=self._verify,
        )

    def _is_ours(self, url: str) -> bool:
        return url.startswith(f"{self._origin}/")

    def _refused(self, call: Call, response: requests.Response) -> WorldError:
        answer = f"{response.status_code} {self._clean(response.reason or '')}"
        words = self._clean(said(response))
        if response.status_code not in (401, 403):
            return self.could_not(call, f"it answered {answer}", details=words)
        return NotAllowedError(
            f"{self.login.account} may not {call.doing}: the registry answered {answer}",
            where=self.host,
            details=words,
            hint=f"`docker login {self.host}` with an account that may;"
            f" {self.login.config_path} and the installed ones of the helpers it names were asked",
        )

    def could_not(self, call: Call, came: str, *, details: str = "") -> NoAnswerError:
        return NoAnswerError(
            f"could not ask the registry to {call.doing}: {came}",
            where=self.host,
            details=details,
            hint=self._hint(came),
        )

    def _hint(self, came: str) -> str:
        if "SSLError" in came:
            return f"put the certificate of its authority into {self._authority}"
        if "answered 412" in came:
            return "a policy of the registry blocks it: immutable tag, scan or signature gate"
        if "a web page" in came:
            return "a proxy or a login portal on the way answers for it; look at the address in a browser"
        if "answered" in came:
            return "try again later; if it stays so, look at the log of the registry"
        if self.is_local:
            return "is it running? `./bootstrap` starts the local one"
        return "check the network and proxy of this machine, and the `registry` of the target"

    def _clean(self, text: str) -> str:
        return _without_queries(self.login.clean(text))


def said(response: requests.Response) -> str:
    """The registry's own words: code and message of each of its errors."""
    try:
        errors = response.json()["errors"]
        words = [f"{error['code']}: {error.get('message', '')}" for error in errors]
    except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
        return ""
    return "\n".join(words)[:500]


def _is_page(response: requests.Response) -> bool:
    return response.ok and response.headers.get("Content-Type", "").startswith("text/html")


def _without_queries(text: str) -> str:
    """Addresses of uploads and redirects carry keys in their query."""
    return re.sub(r"//[^/@\s]+@", "//***@", re.sub(r"\?[^\s)'\"]+", "?…", text))


def not_what_was_asked(host: str, asked: str, came: str) -> WorldError:
    return WorldError(
        f"asking the registry for {asked}: it gave {came}",
        where=host,
        hint="its storage or a proxy on the way changes content; do not use this image",
    )
