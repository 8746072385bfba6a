"""A proxy on loopback in front of a real registry, which does to single requests what networks do to them."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from threading import Lock
from typing import Literal

from tests.loopback import AnyMethodHandler, running


@dataclass(frozen=True)
class Asked:
    """One request: its number counts from 1."""

    number: int
    method: str
    path: str
    size_bytes: int

    @property
    def is_blob_body(self) -> bool:
        return self.method in ("PUT", "PATCH") and "/blobs/uploads/" in self.path


@dataclass(frozen=True)
class Answer:
    """Said instead of asking the registry."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Cut:
    """Half of the body reaches the registry, then both connections end."""


@dataclass(frozen=True)
class Spoil:
    """The registry's answer arrives with its last byte changed."""


@dataclass(frozen=True)
class Call:
    """Something happens before the registry gets the request, instead, or when it has answered and nobody knows yet."""

    act: Callable[[], None]
    when: Literal["before", "instead", "after"]


Fault = Answer | Cut | Spoil | Call | None


@dataclass
class Proxy:
    upstream: str
    rule: Callable[[Asked], Fault] = lambda _: None
    host: str = ""
    seen: list[Asked] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def ask(self, method: str, path: str, size_bytes: int) -> Fault:
        with self.lock:
            asked = Asked(len(self.seen) + 1, method, path, size_bytes)
            self.seen.append(asked)
        return self.rule(asked)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[Proxy]:
    proxy = Proxy(upstream)
    server = _Server(proxy)
    proxy.host = f"127.0.0.1:{server.server_port}"
    with running(server):
        yield proxy


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.proxy = proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed in the middle are what this is for."""


Told = tuple[int, tuple[tuple[str, str], ...], bytes]  # status, headers, body


class _Handler(AnyMethodHandler):
    server: _Server

    def answer(self, body: bytes) -> None:
        match self.server.proxy.ask(self.command, self.path, len(body)):
            case Answer(status, headers):
                self._say((status, headers, b""))
            case Cut():
                self._cut(body)
            case Spoil():
                self._say(_spoilt(self._forward(body)))
            case Call(act, "instead"):
                act()
                self.close_connection = True
            case Call(act, "before"):
                act()
                self._say(self._forward(body))
            case Call(act):
                told = self._forward(body)
                act()
                self._say(told)
            case None:
                self._say(self._forward(body))

    def _forward(self, body: bytes) -> Told:
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, dict(self.headers))
            answer = connection.getresponse()
            dropped = ("connection", "transfer-encoding")
            headers = tuple(pair for pair in answer.getheaders() if pair[0].lower() not in dropped)
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _cut(self, body: bytes) -> None:
        name, _, port = self.server.proxy.upstream.partition(":")
        head = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        with socket.create_connection((name, int(port))) as upstream:
            start = f"{self.command} {self.path} HTTP/1.1\r\n{head}\r\n".encode()
            upstream.sendall(start + body[: len(body) // 2])
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _say(self, told: Told) -> None:
        status, headers, body = told
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in headers}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_request(self, code: int | str = 0, size: int | str = 0) -> None:
        pass


def _spoilt(told: Told) -> Told:
    status, headers, body = told
    return status, headers, body[:-1] + bytes([body[-1] ^ 1]) if body else body
