"""Stand-ins for the HTTP interfaces of both model hubs, as their clients' sources call them."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.loopback import running

TOKEN = "hub-token-that-nobody-may-see"


@dataclass
class Kept:
    """A repository: its newest files, and the messages of its commits."""

    is_private: bool
    license: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: list[str] = field(default_factory=list)

    @property
    def head(self) -> str:
        return hashlib.sha1(repr((self.commits, sorted(self.files.items()))).encode()).hexdigest()


@dataclass
class Reply:
    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """Answers that many requests whose method and path hold this text."""

    method: str
    path: str
    reply: Reply | None  # None: the connection breaks off
    times: int = 1
    comes_after: bool = False  # the request is done, only its answer is this one


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, handler: type[HubHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.repositories: dict[str, Kept] = {}
        self.blobs: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.loses_the_end = False  # of every file that a commit brings
        self.lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def apply(self, kept: Kept, kind: str, value: dict[str, Any]) -> None:
        match kind:
            case "file":
                data = base64.b64decode(value["content"])
                kept.files[value["path"]] = data[:-1] if self.loses_the_end else data
            case "lfsFile":
                kept.files[value["path"]] = self.blobs[value["oid"]]
                kept.lfs.add(value["path"])
            case "deletedFile":
                del kept.files[value["path"]]

    def asked(self, text: str) -> list[str]:
        return [request for request in self.requests if text in request]


class HubHandler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    denied = Reply(401)

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply:
        raise NotImplementedError

    def is_known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_any(self) -> None:
        body = self._body()
        split = urlsplit(self.path)
        path = unquote(split.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        with self.server.lock:
            self.server.requests.append(f"{self.command} {path}")
            fault = self._fault(path)
            if fault is None or fault.comes_after:
                reply = self.answer(self.command, path, query, body)
            if fault is not None:
                if fault.reply is None:
                    self.close_connection = True
                    self.connection.close()
                    return
                reply = fault.reply
        self._send(reply)

    do_GET = do_HEAD = do_POST = do_PUT = do_any  # noqa: N815 the base class names them

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _fault(self, path: str) -> Fault | None:
        for fault in self.server.faults:
            if fault.times and fault.method == self.command and fault.path in path:
                fault.times -= 1
                return fault
        return None

    def _send(self, reply: Reply) -> None:
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it
        pass


class HuggingFaceHandler(HubHandler):
    """Endpoints of huggingface_hub 2.4.0: hf_api.py, _commit_api.py, lfs.py, file_download.py."""

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply:
        if path.startswith("/blobs/"):
            self.server.blobs[path.rpartition("/")[2]] = body
            return Reply(200, {})
        if not self.is_known():
            wrong = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return Reply(401, {"error": wrong["X-Error-Message"]}, wrong)
        if (method, path) == ("POST", "/api/repos/create"):
            return self._create(json.loads(body))
        if (method, path) == ("POST", "/api/validate-yaml"):
            return Reply(200, {"errors": [], "warnings": []})
        name = self._name(path)
        kept = self.server.repositories.get(name)
        if kept is None:
            return Reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return self._of(name, kept, path.partition(name)[2], body)

    def _of(self, name: str, kept: Kept, rest: str, body: bytes) -> Reply:
        if rest == "":
            return Reply(200, self._info(name, kept))
        if rest.startswith("/tree/"):
            return Reply(200, [self._entry(kept, file) for file in sorted(kept.files)])
        if rest.startswith("/preupload/"):
            return Reply(200, {"files": [self._mode(kept, f) for f in json.loads(body)["files"]]})
        if rest == ".git/info/lfs/objects/batch":
            objects = [self._object(found) for found in json.loads(body)["objects"]]
            return Reply(200, {"transfer": "basic", "objects": objects})
        if rest.startswith("/commit/"):
            return self._commit(name, kept, body)
        if rest.startswith("/resolve/"):
            return self._file(kept, rest.split("/", 3)[3])
        return Reply(404, {"error": f"nothing is at {rest}"})

    def _name(self, path: str) -> str:
        words = path.removeprefix("/api/models").strip("/").split("/")
        return "/".join(words[:2]).removesuffix(".git")

    def _create(self, asked: dict[str, Any]) -> Reply:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            return Reply(409, {"error": "You already created this model repo"})
        self.server.repositories[name] = Kept(
            is_private=asked.get("visibility") == "private", files={".gitattributes": b"* text\n"}
        )
        return Reply(200, {"url": f"{self.server.endpoint}/{name}"})

    def _info(self, name: str, kept: Kept) -> dict[str, Any]:
        return {
            "_id": "1",
            "id": name,
            "modelId": name,
            "sha": kept.head,
            "private": kept.is_private,
            "siblings": [{"rfilename": path} for path in sorted(kept.files)],
            "tags": [],
            "downloads": 0,
            "likes": 0,
        }

    def _entry(self, kept: Kept, path: str) -> dict[str, Any]:
        data = kept.files[path]
        entry = {"type": "file", "path": path, "size": len(data), "oid": git_oid(data)}
        if path in kept.lfs:
            oid = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
        return entry

    def _mode(self, kept: Kept, asked: dict[str, Any]) -> dict[str, Any]:
        path = asked["path"]
        mode = "lfs" if path.endswith(".safetensors") else "regular"
        oid = git_oid(kept.files[path]) if path in kept.files and mode == "regular" else None
        return {"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _object(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.server.blobs:
            return asked
        href = f"{self.server.endpoint}/blobs/{asked['oid']}"
        return {**asked, "actions": {"upload": {"href": href}}}

    def _commit(self, name: str, kept: Kept, body: bytes) -> Reply:
        lines = [json.loads(line) for line in body.splitlines()]
        head = next(line["value"] for line in lines if line["key"] == "header")
        if head.get("parentCommit") not in (None, kept.head):
            return Reply(
                412, {"error": "A commit has happened since. Please refresh and try again."}
            )
        for line in lines:
            self.server.apply(kept, line["key"], line["value"])
        kept.commits.append(head["summary"])
        url = f"{self.server.endpoint}/{name}/commit/{kept.head}"
        return Reply(200, {"commitUrl": url, "commitOid": kept.head})

    def _file(self, kept: Kept, path: str) -> Reply:
        if path not in kept.files:
            return Reply(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        data = kept.files[path]
        return Reply(200, data, {"ETag": f'"{git_oid(data)}"', "X-Repo-Commit": kept.head})


class ModelScopeHandler(HubHandler):
    """Endpoints of modelscope-hub 0.5.1: _openapi.py, _legacy_api.py."""

    def answer(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply:
        if not self.is_known():
            return Reply(401, {"Code": 10010205001, "Message": "user not logged in"})
        if path.startswith("/blobs/"):
            self.server.blobs[path.rpartition("/")[2]] = body
            return Reply(200, {"Code": 200})
        if (method, path) == ("POST", "/api/v1/models"):
            return self._create(json.loads(body))
        name, rest = self._name(path)
        kept = self.server.repositories.get(name)
        if kept is None:
            return Reply(404, {"Code": 10010205001, "Message": "模型不存在"})
        return self._of(name, kept, rest, query, body)

    def _of(self, name: str, kept: Kept, rest: str, query: dict[str, str], body: bytes) -> Reply:
        match rest:
            case "":
                info = {"id": name, "private": kept.is_private, "License": kept.license}
                return Reply(200, {"success": True, "data": info})
            case "repo/files":
                files = [self._entry(kept, path) for path in sorted(kept.files)]
                return Reply(200, {"Code": 200, "Data": {"Files": files}})
            case "repo":
                wanted = query["FilePath"]
                if wanted not in kept.files:
                    return Reply(404, {"Code": 404, "Message": "no such file"})
                return Reply(200, kept.files[wanted])
            case "info/lfs/objects/batch":
                objects = [self._object(found) for found in json.loads(body)["objects"]]
                return Reply(200, {"Code": 200, "Data": {"objects": objects}})
            case "commit/master":
                return self._commit(kept, json.loads(body))
        return Reply(404, {"Code": 404, "Message": f"nothing is at {rest}"})

    def _name(self, path: str) -> tuple[str, str]:
        for prefix in ("/openapi/v1/models/", "/api/v1/models/", "/api/v1/repos/models/"):
            if path.startswith(prefix):
                owner, name, *rest = path.removeprefix(prefix).split("/")
                return f"{owner}/{name}", "/".join(rest)
        return "", path

    def _create(self, asked: dict[str, Any]) -> Reply:
        name = f"{asked['Path']}/{asked['Name']}"
        if name in self.server.repositories:
            return Reply(400, {"Code": 10010101001, "Message": "该名称已被注册使用，请重新命名"})
        self.server.repositories[name] = Kept(
            is_private=asked["Visibility"] == 1,
            license=asked["License"],
            files={"README.md": b"made by the hub\n"},
        )
        return Reply(200, {"Code": 200, "Data": {"Path": asked["Path"], "Name": asked["Name"]}})

    def _entry(self, kept: Kept, path: str) -> dict[str, Any]:
        data = kept.files[path]
        sha256 = hashlib.sha256(data).hexdigest()
        return {"Path": path, "Type": "blob", "Size": len(data), "Sha256": sha256}

    def _object(self, asked: dict[str, Any]) -> dict[str, Any]:
        if asked["oid"] in self.server.blobs:
            return {**asked, "actions": {}}
        href = f"{self.server.endpoint}/blobs/{asked['oid']}"
        return {**asked, "actions": {"upload": {"href": href}}}

    def _commit(self, kept: Kept, asked: dict[str, Any]) -> Reply:
        for action in asked["actions"]:
            kind = "deletedFile" if action["action"] == "delete" else action["type"]
            kind = {"normal": "file", "lfs": "lfsFile"}.get(kind, kind)
            self.server.apply(kept, kind, {**action, "oid": action["sha256"]})
        kept.commits.append(asked["commit_message"])
        return Reply(200, {"Code": 200, "Success": True, "Data": {"commit_id": kept.head}})


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving(handler: type[HubHandler]) -> Iterator[HubServer]:
    with running(HubServer(handler)) as server:
        yield server
