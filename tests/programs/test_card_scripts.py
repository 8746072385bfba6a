"""The Python scripts of a card, written as its blocks write them and run with the real OpenAI client.

The server behind is a stand-in on loopback that answers as vLLM's interface does; what it was asked is what is tested.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipeline.cards.blocks import code_blocks
from pipeline.stages.card import card
from pipeline.templates import Templates
from tests.loopback import running
from tests.records import nvidia_record

pytestmark = pytest.mark.skipif(
    find_spec("openai") is None, reason="the OpenAI client is not installed: pip install '.[dev]'"
)
CARD = card(nvidia_record(), Templates(Path(__file__).parents[2] / "templates"))["card.en.md"]
PRINTED = "http://127.0.0.1:9010"
PIECES = ("The capital", " of France", " is Paris.")


class Server(ThreadingHTTPServer):
    """Answers every chat request with the same sentence, whole or in pieces."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[dict[str, Any]] = []


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append({"path": self.path, "key": self.headers["Authorization"], **body})
        self.send_response(200)
        if body.get("stream"):
            self._stream()
        else:
            self._whole()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name there
        pass

    def _whole(self) -> None:
        message = {"role": "assistant", "content": "".join(PIECES)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send("application/json", json.dumps(_chat("chat.completion", choice)))

    def _stream(self) -> None:
        choices = [{"index": 0, "delta": {"content": piece}} for piece in PIECES]
        lines = [json.dumps(_chat("chat.completion.chunk", choice)) for choice in choices]
        # vLLM ends with the usage, in a piece without choices.
        lines += [json.dumps(_chat("chat.completion.chunk")), "[DONE]"]
        self._send("text/event-stream", "".join(f"data: {line}\n\n" for line in lines))

    def _send(self, kind: str, text: str) -> None:
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


def _chat(kind: str, *choices: dict[str, Any]) -> dict[str, Any]:
    return {"id": "1", "object": kind, "created": 0, "model": "m", "choices": list(choices)}


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as made:
        yield made


def run(script: str, server: Server, folder: Path) -> str:
    """Write the script as its block does, with the port of the stand-in; what it prints."""
    (block,) = (b for b in code_blocks(CARD.decode()) if f"cat > {script} " in b.text)
    text = block.text.replace(PRINTED, f"http://127.0.0.1:{server.server_port}")
    subprocess.run(["bash", "-e"], input=text, text=True, cwd=folder, check=True)
    done = subprocess.run(
        [sys.executable, script],
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_question_is_asked_and_its_answer_printed(server: Server, tmp_path: Path) -> None:
    assert run("ask.py", server, tmp_path) == "The capital of France is Paris.\n"
    assert server.asked == [
        {
            "path": "/v1/chat/completions",
            "key": "Bearer EMPTY",
            "model": "step3-nvidia-flagos",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "temperature": 0,
            "stream": False,
            "stop_token_ids": [1, 73440],
        }
    ]


def test_a_stream_is_printed_piece_by_piece(server: Server, tmp_path: Path) -> None:
    assert run("stream.py", server, tmp_path) == "The capital of France is Paris.\n"
    assert server.asked[0]["stream"] is True


def test_a_picture_is_sent_as_data(server: Server, tmp_path: Path) -> None:
    assert run("see.py", server, tmp_path) == "The capital of France is Paris.\n"
    picture, question = server.asked[0]["messages"][0]["content"]
    kind, _, data = picture["image_url"]["url"].partition(";base64,")
    assert (kind, base64.b64decode(data)[:8]) == ("data:image/png", b"\x89PNG\r\n\x1a\n")
    assert question == {"type": "text", "text": "Which colour is this square?"}
