"""A stand-in for Harbor on loopback: its own interface in memory, and a real docker-registry behind `/v2/`.

No Harbor runs here. What holds this to the real one is Harbor's API description, of which tests/fixtures/harbor has a
part: every request must be one that it allows and every answer must be one that it gives, both strictly (what it does
not name is a fault). What it does not say is from Harbor's source: that an immutable tag answers 412 to PUT and to
DELETE, that a tag alone cannot be deleted through `/v2/`, and that a description is stored with HTML escaped.
"""

from __future__ import annotations

import base64
import fnmatch
import html
import http.client
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from jsonschema import Draft4Validator, FormatChecker

from tests.loopback import AnyMethodHandler, running
from tests.projects import ROOT

FILE = ROOT / "tests/fixtures/harbor/swagger.yaml"
PASSWORD = "harbor-password-that-nobody-may-see"
NOT_IN_THE_DESCRIPTION = (("DELETE", 412),)  # but in src/controller/tag/controller.go
Reply = tuple[int, Any]


@cache
def description() -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.load(FILE.read_text("utf-8"), yaml.CSafeLoader)
    return found


@cache
def strict_definitions() -> Mapping[str, Any]:
    definitions = deepcopy(description()["definitions"])
    for one in definitions.values():
        if "properties" in one:
            one.setdefault("additionalProperties", False)
    found: Mapping[str, Any] = definitions
    return found


def faults_of(value: object, schema: Mapping[str, Any]) -> list[str]:
    """What a value has that a schema of the description does not allow."""
    whole = {**schema, "definitions": strict_definitions()}
    validator = Draft4Validator(whole, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]


def resolved(part: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in part:
        return part
    _, kind, name = part["$ref"].split("/")
    found: Mapping[str, Any] = description()[kind][name]
    return found


@dataclass
class Kept:
    """What this Harbor knows of one project."""

    is_public: bool = True
    rules: list[dict[str, Any]] = field(default_factory=list)
    descriptions: dict[str, str] = field(default_factory=dict)


class FakeHarbor(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: str, storage: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.registry, self.storage = registry, storage
        self.projects: dict[str, Kept] = {}
        self.may_not: set[str] = set()  # operations that this account may not
        self.faults: list[str] = []  # where a request or an answer is not as described
        self.asked: list[str] = []  # operations, in their order

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def is_immutable(self, repository: str, tag: str) -> bool:
        """Whether a tag is there and a rule holds it. Harbor's doublestar, as far as these patterns go."""
        project, _, name = repository.partition("/")
        kept = self.projects.get(project, Kept())
        return self.has_tag(repository, tag) and any(
            _matches(rule["tag_selectors"][0]["pattern"], tag)
            and _matches(rule["scope_selectors"]["repository"][0]["pattern"], name)
            for rule in kept.rules
            if not rule.get("disabled")
        )

    def has_tag(self, repository: str, tag: str) -> bool:
        return self.tag_folder(repository, tag).is_dir()

    def tag_folder(self, repository: str, tag: str) -> Path:
        return self.repository_folder(repository) / "_manifests/tags" / tag

    def repository_folder(self, repository: str) -> Path:
        return self.storage / "docker/registry/v2/repositories" / repository

    def handle_error(self, request: object, client_address: object) -> None:
        self.faults.append("the stand-in itself failed")
        super().handle_error(request, client_address)  # type: ignore[arg-type]


def _matches(pattern: str, text: str) -> bool:
    choices = re.fullmatch(r"\{(.*)\}", pattern)
    return any(
        fnmatch.fnmatchcase(text, one) for one in (choices[1].split(",") if choices else [pattern])
    )


@contextmanager
def fake_harbor(registry: str, storage: Path) -> Iterator[FakeHarbor]:
    """Raises AssertionError at its end if anything was not as Harbor's API description says."""
    with running(FakeHarbor(registry, storage)) as server:
        yield server
    assert server.faults == []


class _Handler(AnyMethodHandler):
    server: FakeHarbor

    def answer(self, body: bytes) -> None:
        if self.path.startswith("/v2/"):
            self._oci(body)
        else:
            self._own(body)

    def _own(self, body: bytes) -> None:
        """One operation of the description: checked, done, and its answer checked."""
        url = urlsplit(self.path)
        path, values = _operation_path(url.path.removeprefix(description()["basePath"]))
        operation = description()["paths"].get(path, {}).get(self.command.lower())
        if operation is None:
            self.server.faults.append(f"{self.command} {self.path}: no such operation")
            self._say(404, _errors("NOT_FOUND"))
            return
        name = operation["operationId"]
        self.server.asked.append(name)
        content = json.loads(body) if body else None
        query = {key: found[0] for key, found in parse_qs(url.query).items()}
        self.server.faults += [
            f"{name}: {one}" for one in _request_faults(operation, query, content)
        ]
        status, reply = self._done(name, values, query, content)
        self.server.faults += [
            f"{name} answered: {one}"
            for one in _answer_faults(operation, self.command, status, reply)
        ]
        self._say(status, reply)

    def _done(
        self, name: str, values: Mapping[str, str], query: Mapping[str, str], content: Any
    ) -> Reply:
        pair = base64.b64encode(f"robot$release:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {pair}":
            return 401, _errors("UNAUTHORIZED")
        if name in self.server.may_not:
            return 403, _errors("FORBIDDEN")
        project = values.get("project_name") or values["project_name_or_id"]
        kept = self.server.projects.get(project)
        if kept is None:
            return (
                (403, _errors("FORBIDDEN"))
                if name == "ListImmuRules"
                else (404, _errors("NOT_FOUND"))
            )
        match name:
            case "getProject":
                told = {"public": "true" if kept.is_public else "false"}
                return 200, {"project_id": 7, "name": project, "metadata": told}
            case "ListImmuRules":
                size, page = int(query.get("page_size", 10)), int(query.get("page", 1))
                return 200, kept.rules[(page - 1) * size : page * size]
            case "CreateImmuRule":
                kept.rules.append({"id": len(kept.rules) + 1, "priority": 0, **content})
                return 201, None
        return self._of_repository(name, project, kept, values, content)

    def _of_repository(
        self, name: str, project: str, kept: Kept, values: Mapping[str, str], content: Any
    ) -> Reply:
        repository = unquote(unquote(values["repository_name"]))
        whole = f"{project}/{repository}"
        if not self.server.repository_folder(whole).is_dir():
            return 404, _errors("NOT_FOUND")
        match name:
            case "getRepository":
                words = kept.descriptions.get(repository, "")
                return 200, {"id": 3, "name": whole, "description": words, "artifact_count": 1}
            case "updateRepository":
                kept.descriptions[repository] = html.escape(content["description"])
                return 200, None
            case "deleteTag":
                return self._delete_tag(whole, values["tag_name"])
        raise LookupError(name)

    def _delete_tag(self, repository: str, tag: str) -> Reply:
        if self.server.is_immutable(repository, tag):
            return 412, _errors("PRECONDITION")
        if not self.server.has_tag(repository, tag):
            return 404, _errors("NOT_FOUND")
        shutil.rmtree(self.server.tag_folder(repository, tag))
        return 200, None

    def _oci(self, body: bytes) -> None:
        found = re.fullmatch(r"/v2/(.+)/manifests/([^:]+)", self.path)
        if found and self.command == "PUT" and self.server.is_immutable(found[1], found[2]):
            self._say(412, _errors("PRECONDITION"))
        elif found and self.command == "DELETE":
            self._say(400, _errors("UNSUPPORTED"))
        else:
            self._forward(body)

    def _forward(self, body: bytes) -> None:
        connection = http.client.HTTPConnection(self.server.registry, timeout=30)
        connection.request(self.command, self.path, body or None, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") or str(len(content))
        self._end(content, length)
        connection.close()

    def _say(self, status: int, reply: Any) -> None:
        content = b"" if reply is None else json.dumps(reply).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self._end(content, str(len(content)))

    def _end(self, content: bytes, length: str) -> None:
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()


def _operation_path(path: str) -> tuple[str, dict[str, str]]:
    """The path of the description that a request means, and the values in it."""
    for template in description()["paths"]:
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
        if found := re.fullmatch(pattern, path):
            return template, found.groupdict()
    return "", {}


def _request_faults(
    operation: Mapping[str, Any], query: Mapping[str, str], content: Any
) -> Iterator[str]:
    parameters = [resolved(one) for one in operation["parameters"]]
    known = {one["name"]: one for one in parameters if one["in"] == "query"}
    yield from (f"no query {name}" for name in query.keys() - known.keys())
    for name in query.keys() & known.keys():
        number = int(query[name]) if known[name]["type"] == "integer" else None
        if number is not None and number > known[name].get("maximum", number):
            yield f"{name} is {number}"
    bodies = [one["schema"] for one in parameters if one["in"] == "body"]
    if bodies:
        yield from faults_of(content, bodies[0])
    elif content is not None:
        yield "it takes no body"


def _answer_faults(
    operation: Mapping[str, Any], method: str, status: int, reply: Any
) -> Iterator[str]:
    if (method, status) in NOT_IN_THE_DESCRIPTION:
        return
    answer = operation["responses"].get(str(status))
    if answer is None:
        yield f"{status} is not in the description"
    elif schema := resolved(answer).get("schema"):
        yield from faults_of(reply, schema)


def _errors(code: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "message": f"the stand-in says {code.lower()}"}]}
