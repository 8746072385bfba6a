"""A package index on loopback that asks for a user and a password, as a company's own does."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.loopback import running


@contextmanager
def wheel_index(
    wheels: Mapping[str, bytes], account: str, given: set[str], *, with_origin: bool = False
) -> Iterator[str]:
    """Its address with the account in it. `wheels` by file name; `account` is user:password; `given` gets names."""
    wanted = "Basic " + base64.b64encode(account.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self._say(401, b"", ("WWW-Authenticate", 'Basic realm="toys"'))
                return
            kind, _, name = self.path.strip("/").partition("/")
            if kind == "files":
                given.add(name)
                self._say(200, wheels[name], ("Content-Type", "application/octet-stream"))
                return
            found = [one for one in wheels if one.split("-")[0] == name.replace("-", "_")]
            origin = f"http://{self.headers['Host']}" if with_origin else ""
            links = "".join(f'<a href="{origin}/files/{one}">{one}</a>' for one in found)
            self._say(200 if found else 404, links.encode(), ("Content-Type", "text/html"))

        def _say(self, status: int, body: bytes, header: tuple[str, str]) -> None:
            self.send_response_only(status)
            self.send_header(*header)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 the name that http.server calls

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://{account}@127.0.0.1:{server.server_port}/simple"
