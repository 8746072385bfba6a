"""Package indexes that ask for an account, for an image build: on loopback, so that no layer ever holds the account.

Docker's classic builder keeps every step of a build, and has no secrets. What a step needs to know of such an index is
the address of its relay and a word that is worth nothing once the build has ended.
"""

from __future__ import annotations

import os
import secrets
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from requests.utils import get_netrc_auth

from pipeline.world.context import ca_bundle, extra_indexes, main_index

FORWARDED = ("Accept", "Range", "If-None-Match", "If-Modified-Since")
RETURNED = (
    "Content-Type",
    "Content-Range",
    "Accept-Ranges",
    "ETag",
    "Last-Modified",
    "Cache-Control",
)
TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 20
USER = "build"


@dataclass(frozen=True, kw_only=True)
class PackageIndexes:
    """Addresses without a secret."""

    main: str | None  # None: the public one
    extra: tuple[str, ...]


@contextmanager
def indexes_for_build(of_chip: Sequence[str]) -> Iterator[PackageIndexes]:
    """This machine's package indexes and those of a chip, for a build here; a relay for each that has an account."""
    main, extra = main_index(), (*extra_indexes(), *of_chip)
    with ExitStack() as relays:

        def reachable(address: str) -> str:
            account = _account(address)
            return relays.enter_context(_relayed(address, account)) if account else address

        yield PackageIndexes(
            main=reachable(main) if main else None, extra=tuple(map(reachable, extra))
        )


def _account(address: str) -> tuple[str, str] | None:
    """In the address, else in ~/.netrc. A user name alone may be a secret: some indexes take a token in its place."""
    parts = urlsplit(address)
    if "@" in parts.netloc:
        return unquote(parts.username or ""), unquote(parts.password or "")
    return get_netrc_auth(address)


@contextmanager
def _relayed(address: str, account: tuple[str, str]) -> Iterator[str]:
    with _Relay(address, account) as relay:
        thread = threading.Thread(target=relay.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield relay.address
        finally:
            relay.shutdown()
            thread.join()


class _Relay(ThreadingHTTPServer):
    def __init__(self, upstream: str, account: tuple[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        parts, word = urlsplit(upstream), secrets.token_hex(16)
        self.origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.account = account
        self.wanted = "Basic " + b64encode(f"{USER}:{word}".encode()).decode()
        here = f"{USER}:{word}@127.0.0.1:{self.server_port}"
        self.address = urlunsplit(("http", here, parts.path, parts.query, ""))

    def ask(self, method: str, path: str, headers: Mapping[str, str]) -> requests.Response:
        return requests.request(
            method,
            f"{self.origin}{path}",
            headers={**headers, "Accept-Encoding": "identity"},
            auth=self.account,
            verify=os.fspath(ca_bundle()),
            stream=True,
            timeout=TIMEOUT_S,
        )


class _Asked(BaseHTTPRequestHandler):
    server: _Relay

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != self.server.wanted:
            self._head(401, {"WWW-Authenticate": 'Basic realm="build"', "Content-Length": "0"})
            return
        headers = {name: self.headers[name] for name in FORWARDED if name in self.headers}
        try:
            with closing(self.server.ask(self.command, self.path, headers)) as answer:
                self._pass_on(answer)
        except requests.RequestException as error:
            said = f"the package index did not answer: {type(error).__name__}".encode()
            self._head(502, {"Content-Length": str(len(said))})
            self.wfile.write(said)

    do_HEAD = do_GET  # noqa: N815 the name that http.server calls

    def _pass_on(self, answer: requests.Response) -> None:
        headers = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
        if length := answer.headers.get("Content-Length"):
            headers["Content-Length"] = length
        if self.command == "HEAD":
            self._head(answer.status_code, headers)
        elif _is_page(answer):
            # Pages may link to their files with the whole address, which the build has no password for.
            here = f"http://{self.headers['Host']}"
            page = answer.content.replace(self.server.origin.encode(), here.encode())
            self._head(answer.status_code, {**headers, "Content-Length": f"{len(page)}"})
            self.wfile.write(page)
        else:
            self._head(answer.status_code, headers)
            for chunk in answer.iter_content(CHUNK_BYTES):
                self.wfile.write(chunk)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _is_page(answer: requests.Response) -> bool:
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    return kind == "text/html" or kind.startswith("application/vnd.pypi.simple.")
