"""A stand-in for vLLM's chat endpoint that answers everything alike, the last question first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pipeline.world.endpoint import Endpoint
from tests.loopback import running

ANSWER = "The sign says FLAGOS, so \\boxed{7} it is.\nANSWER: A"
TOO_LONG = "This one is too long for the context."
OVERFLOW = {
    "error": {
        "message": "This model's maximum context length is 2048 tokens. However, you requested 4096 tokens.",
        "type": "BadRequestError",
        "param": None,
        "code": 400,
    }
}


class ChatServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    seen: list[dict[str, Any]]
    fails_on = ""  # prompts that hold this


class Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # unbuffered, every reply would wait 40 ms for a delayed acknowledgement

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append(body)
        text = json.dumps(body["messages"], ensure_ascii=False)
        if TOO_LONG in text:
            self._answer(400, OVERFLOW)
            return
        if self.server.fails_on and self.server.fails_on in text:
            self._answer(500, {"error": {"message": "EngineCore died", "code": 500}})
            return
        # Those that came first wait longest, so that results are never in the order of the questions.
        time.sleep(0.2 / len(self.server.seen))
        message = {"role": "assistant", "content": ANSWER}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 32}
        reply = {"id": "chat-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        self._answer(200, {**reply, "choices": [choice], "usage": usage})

    def _answer(self, status: int, reply: Any) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it
        pass


@contextmanager
def chat_server() -> Iterator[tuple[ChatServer, Endpoint]]:
    server = ChatServer(("127.0.0.1", 0), Handler)
    server.seen = []
    with running(server):
        url = f"http://127.0.0.1:{server.server_port}"
        yield server, Endpoint(base_url=url, model="toy", timeout_s=20)
