"""A package index that asks for a password, for an image build: on loopback, so that no layer ever holds the password.

Docker's classic builder keeps every step of a build, and has no secrets. What a step needs to know of the index is
the address of this relay and a word that is worth nothing once the build has ended.
"""

from __future__ import annotations

import os
import secrets
import threading
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit, urlunsplit

import requests

from pipeline.world.context import ca_bundle, main_index

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


@contextmanager
def index_for_build() -> Iterator[str | None]:
    """The address of this machine's package index for a build on it; a relay's, if ours holds an account.

    A user name alone may be a secret: some indexes take a token in its place.
    """
    address = main_index()
    if address is None or "@" not in urlsplit(address).netloc:
        yield address
        return
    with _Relay(address) as relay:
        thread = threading.Thread(target=relay.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield relay.address
        finally:
            relay.shutdown()
            thread.join()


class _Relay(ThreadingHTTPServer):
    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        parts, word = urlsplit(upstream), secrets.token_hex(16)
        self.origin = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.account = (unquote(parts.username or ""), unquote(parts.password or ""))
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
