"""A stand-in for the FlagEval service, written after FlagRelease's own client and instruction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.loopback import running

DONE = {
    "err_code": 0,
    "eval_results": {
        "step3-nvidia-flagos": {
            "status": "S",
            "details": [{"dataset": "CMMMU", "accuracy": 65.24, "diff": -0.45, "status": "S"}],
        }
    },
}


class Service(ThreadingHTTPServer):
    """Accepts what has `eval_model` in the place it was told; is finished at the third look."""

    daemon_threads = True
    layout = "flat"
    result: Any = DONE
    raw: bytes | None = None
    status = 200
    looks = 0
    missing_bytes = 0  # of every answer: it breaks off
    asked: list[tuple[str, str, Any]]

    def answer(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        match method, path:
            case "POST", "/evaluation":
                asked = body if self.layout == "flat" else (body.get("eval_infos") or [{}])[0]
                if "eval_model" not in asked:
                    return {"err_code": 1, "err_msg": "eval_model is missing"}
                return {"err_code": 0, "request_id": "r-1", "eval_tasks": ["CMMMU"]}
            case "POST", "/evaluation_progress":
                self.looks += 1
                progress = {"datasets_progress": f"{self.looks}/3", "running_dataset": "CMMMU"}
                return {"err_code": 0, "finished": self.looks == 3, "status": "R", **progress}
            case ("GET", "/evaldiffs") | ("GET", "/evaluation_diffs"):
                return dict(self.result)
            case "POST", "/stop_evaluation" | "/resume_evaluation":
                return {"err_code": 0}
        return {"err_code": 404, "err_msg": f"no {method} {path}"}


class Handler(BaseHTTPRequestHandler):
    server: Service
    wbufsize = -1

    def do_GET(self) -> None:
        self._reply()

    def do_POST(self) -> None:
        self._reply()

    def _reply(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.command, self.path, body))
        raw = self.server.raw
        data = json.dumps(self.server.answer(self.command, self.path, body)).encode()
        data = data if raw is None else raw
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(data) + self.server.missing_bytes))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it
        pass


@contextmanager
def serving() -> Iterator[Service]:
    server = Service(("127.0.0.1", 0), Handler)
    server.asked = []
    with running(server):
        yield server
