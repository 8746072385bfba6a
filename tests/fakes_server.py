"""A stand-in for vLLM's OpenAI server on loopback, with the faults that real servers have shown."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
import zlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.fakes_model import ToyModel

PARIS = "The capital of France is Paris."


@dataclass(kw_only=True)
class Behaviour:
    """How the server answers; left alone it is right in everything."""

    model: str = "poet-abacus-flagos"
    max_model_len: int | None = 2048
    healthy: bool = True
    answers: tuple[str, ...] = (PARIS,)  # in turn, then from the start again
    completion_status: int = 200
    error: str = "EngineCore encountered an issue. See stack trace above for the root cause."
    logprobs: tuple[float | None, ...] = (-0.1, -2.5)
    streamed: tuple[str, ...] | None = None  # pieces; None: the whole answer, word by word
    stream_error: str = ""  # sent as an event after the first piece
    checks_model_name: bool = True
    loses_prompt_tokens: int = 0
    too_busy_for: str | None = None  # prompts that hold this
    seconds: float = 0  # of every completion
    raw_body: str | None = None  # instead of every JSON answer to a completion
    sees: bool = True  # pictures; a server that does not answers as to any other prompt
    toy: ToyModel | None = None  # answers with token ids and log-probabilities of its own
    broken_connections: int = 0  # closed without an answer, before the others
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


class StandInServer:
    """Listens from its start to its stop; each request has a thread of its own."""

    def __init__(self, behaviour: Behaviour | None = None, port: int = 0) -> None:
        self.behaviour = behaviour or Behaviour()
        self._http = _Http(("127.0.0.1", port), _Handler)
        self._http.behaviour = self.behaviour
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.005,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> StandInServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def colour_shown(body: dict[str, Any]) -> str | None:
    """Of the PNG in a chat request: decoded, as a model that sees would have to."""
    parts = [part for one in body["messages"] for part in one["content"] if isinstance(part, dict)]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    if not urls:
        return None
    data = base64.b64decode(urls[0].removeprefix("data:image/png;base64,"), validate=True)
    at, pixels = data.index(b"IDAT"), data.index(b"IEND")
    first_line = zlib.decompress(data[at + 4 : pixels - 8])
    return {b"\xff\0\0": "red", b"\0\0\xff": "blue"}[first_line[1:4]]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    behaviour: Behaviour

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lock = threading.Lock()
        self.answered = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    wbufsize = -1  # unbuffered, every reply would wait 40 ms for a delayed acknowledgement

    @property
    def behaviour(self) -> Behaviour:
        return self.server.behaviour

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200 if self.behaviour.healthy else 503, b"")
        elif self.path == "/v1/models":
            model = {"id": self.behaviour.model, "object": "model"}
            if self.behaviour.max_model_len is not None:
                model["max_model_len"] = self.behaviour.max_model_len  # type: ignore[assignment]
            self._json(200, {"object": "list", "data": [model]})
        else:
            self._json(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.behaviour.requests.append((self.path, body))
        time.sleep(self.behaviour.seconds)
        if self._breaks():
            self.close_connection = True
        elif self.behaviour.toy is not None:
            self._teach(self.behaviour.toy, body)
        else:
            self._complete(body)

    def _breaks(self) -> bool:
        with self.server.lock:
            self.behaviour.broken_connections -= 1
            return self.behaviour.broken_connections >= 0

    def _teach(self, toy: ToyModel, body: dict[str, Any]) -> None:
        """As vLLM: a number that JSON cannot hold becomes HTTP 500."""
        try:
            data = json.dumps(toy.reply(self.path, body), allow_nan=False)
        except ValueError:
            self._error(500, "Out of range float values are not JSON compliant")
        else:
            self._answer(200, data.encode())

    def _complete(self, body: dict[str, Any]) -> None:
        behaviour = self.behaviour
        busy = behaviour.too_busy_for
        if behaviour.checks_model_name and body["model"] != behaviour.model:
            self._error(404, f"The model `{body['model']}` does not exist.")
        elif busy is not None and busy in json.dumps(body):
            self._error(503, "too many requests at once")
        elif behaviour.completion_status != 200:
            self._error(behaviour.completion_status, behaviour.error)
        elif behaviour.raw_body is not None:
            self._answer(200, behaviour.raw_body.encode())
        elif body.get("stream"):
            self._stream(self._text())
        elif self.path == "/v1/completions":
            self._json(200, {"choices": [{"text": self._text()}], "usage": self._usage(body)})
        else:
            colour = colour_shown(body) if behaviour.sees else None
            text = f"The square is {colour}." if colour else self._text()
            choice: dict[str, Any] = {"message": {"content": text}}
            if body.get("logprobs"):
                top = [{"logprob": value} for value in behaviour.logprobs]
                choice["logprobs"] = {"content": [{"top_logprobs": top}]}
            self._json(200, {"choices": [choice], "usage": self._usage(body)})

    def _text(self) -> str:
        with self.server.lock:
            number = self.server.answered
            self.server.answered += 1
        return self.behaviour.answers[number % len(self.behaviour.answers)]

    def _usage(self, body: dict[str, Any]) -> dict[str, int]:
        prompt = body.get("prompt", "")
        counted = len(prompt) if isinstance(prompt, list) else len(str(prompt).split())
        counted = max(0, counted - self.behaviour.loses_prompt_tokens)
        return {"prompt_tokens": counted, "completion_tokens": int(body.get("max_tokens", 1))}

    def _stream(self, text: str) -> None:
        pieces = self.behaviour.streamed
        if pieces is None:
            words = text.split(" ")
            pieces = (*(f"{word} " for word in words[:-1]), words[-1])
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"role": "assistant"}}]}]
        events += [{"choices": [{"delta": {"content": piece}}]} for piece in pieces]
        if self.behaviour.stream_error:
            events[2:] = [{"error": {"message": self.behaviour.stream_error}}]
        lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
        self._answer(200, "".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def _error(self, status: int, message: str) -> None:
        self._json(status, {"error": {"message": message, "type": "Error", "code": status}})

    def _json(self, status: int, content: dict[str, Any]) -> None:
        self._answer(status, json.dumps(content).encode())

    def _answer(self, status: int, data: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it
        pass
