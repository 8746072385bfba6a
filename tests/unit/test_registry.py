"""The registry client against a scripted server on loopback."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from pipeline.canonical import sha256_bytes
from pipeline.errors import NoAnswerError, NotAllowedError, UsageError, WorldError
from pipeline.world import registry_blobs
from pipeline.world.oci import OCI_INDEX, OCI_MANIFEST, Manifest, Reference, parse_reference
from pipeline.world.registry import Registry
from pipeline.world.registry_artifacts import referrers
from pipeline.world.registry_credentials import Credentials, login_file, read_credentials
from pipeline.world.registry_login import Login
from pipeline.world.registry_retries import ANSWERED_ATTEMPTS, ATTEMPTS, CONNECT_TIMEOUT_S
from tests.fakes_registry import FakeRegistry
from tests.loopback import running

BODY = b'{"schemaVersion":2}'
DIGEST = f"sha256:{sha256_bytes(BODY)}"
OTHER = f"sha256:{sha256_bytes(b'other')}"
PASSWORD = "correct-horse"
PAIR = base64.b64encode(f"robot$ci:{PASSWORD}".encode()).decode()


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass
class Script:
    """Answers of a stand-in by request line; the last one of a list stays."""

    host: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)  # of uploads and downloads

    def say(self, line: str, *answers: Answer) -> None:
        self.answers[line] = list(answers)

    def next(self, line: str) -> Answer:
        waiting = self.answers.get(line, [Answer(404)])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


def handler_of(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # header and body in one packet: no wait for a delayed ACK

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            line = f"{self.command} {self.path}"
            script.seen.append(line)
            script.authorizations.append(self.headers.get("Authorization", ""))
            asked = self.headers.get("Content-Range") or self.headers.get("Range")
            script.ranges += [asked] if asked else []
            length = int(self.headers.get("Content-Length", "0"))
            script.bodies.append(self.rfile.read(length))
            self.answer(script.next(line))

        def answer(self, answer: Answer) -> None:
            self.send_response(
                answer.status, answer.reason and answer.reason.encode().decode("latin-1")
            )
            for name, value in answer.headers.items():
                self.send_header(name, value)
            # "Cut" promises more bytes than come before the connection ends.
            promised = answer.headers.get("Cut", str(len(answer.body)))
            self.send_header("Content-Length", promised)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            self.wfile.flush()
            self.close_connection = "Cut" in answer.headers

        def log_request(self, code: int | str = 0, size: int | str = 0) -> None:
            pass

    return Handler


class StandIn(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up in the middle are part of the tests."""


def serve(script: Script) -> Iterator[Script]:
    server = StandIn(("127.0.0.1", 0), handler_of(script))
    script.host = f"127.0.0.1:{server.server_port}"
    with running(server):
        yield script


@pytest.fixture
def script() -> Iterator[Script]:
    yield from serve(Script())


@pytest.fixture
def foreign() -> Iterator[Script]:
    yield from serve(Script())


@pytest.fixture
def docker_config(tmp_path: Path, script: Script) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {script.host: {"auth": PAIR}}}))
    return path


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def registry(script: Script, tmp_path: Path, pauses: list[float]) -> Iterator[Registry]:
    client = Registry(script.host, docker_config=tmp_path / "none.json", sleep=pauses.append)
    yield client
    client.close()


@pytest.fixture
def known(script: Script, docker_config: Path) -> Iterator[Registry]:
    """A client with credentials."""
    client = Registry(script.host, docker_config=docker_config, sleep=lambda _: None)
    yield client
    client.close()


def ok(body: bytes = BODY, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(200, body, {"Content-Type": OCI_MANIFEST, **named})


def test_a_manifest_is_returned_with_its_digest_type_and_bytes(
    script: Script, registry: Registry
) -> None:
    script.say("GET /v2/cpu/m/manifests/t", ok(Docker_Content_Digest=DIGEST))
    assert registry.manifest("cpu/m", "t") == Manifest(
        digest=DIGEST, media_type=OCI_MANIFEST, body=BODY
    )


def test_404_means_absent(registry: Registry) -> None:
    assert registry.manifest("cpu/m", "t") is None
    assert registry.head("cpu/m", "t") is None
    assert registry.tags("cpu/m") == ()
    assert not registry.has_blob("cpu/m", DIGEST)


def test_412_is_never_absent(script: Script, registry: Registry) -> None:
    said = {"errors": [{"code": "PROJECTPOLICYVIOLATION", "message": "blocked"}]}
    script.say("GET /v2/cpu/m/manifests/t", Answer(412, json.dumps(said).encode()))
    with pytest.raises(WorldError) as caught:
        registry.manifest("cpu/m", "t")
    assert str(caught.value) == (
        f"{script.host}: could not ask the registry to read manifest cpu/m:t:"
        " it answered 412 Precondition Failed\n"
        "PROJECTPOLICYVIOLATION: blocked\n"
        "hint: a policy of the registry blocks it: immutable tag, scan or signature gate"
    )


def test_401_and_403_say_may_not(script: Script, registry: Registry) -> None:
    for status in (401, 403):
        script.say("HEAD /v2/cpu/m/manifests/t", Answer(status))
        with pytest.raises(WorldError, match="an anonymous client may not read"):
            registry.head("cpu/m", "t")


def test_a_500_is_asked_again_after_a_pause(
    script: Script, registry: Registry, pauses: list[float]
) -> None:
    script.say("HEAD /v2/cpu/m/manifests/t", Answer(500), ok(Docker_Content_Digest=DIGEST))
    assert registry.head("cpu/m", "t") == DIGEST
    assert len(pauses) == 1


def test_a_registry_that_stays_broken_is_asked_a_few_times_only(
    script: Script, registry: Registry
) -> None:
    script.say("GET /v2/cpu/m/manifests/t", Answer(503))
    with pytest.raises(WorldError, match="it answered 503 Service Unavailable"):
        registry.manifest("cpu/m", "t")
    assert len(script.seen) == ANSWERED_ATTEMPTS


def test_retry_after_is_obeyed(script: Script, registry: Registry, pauses: list[float]) -> None:
    busy = Answer(429, headers={"Retry-After": "7"})
    script.say("GET /v2/cpu/m/manifests/t", busy, ok())
    assert registry.manifest("cpu/m", "t") is not None
    assert pauses == [7.0]


def test_a_retry_after_beyond_the_deadline_is_not_waited_for(
    script: Script, registry: Registry, pauses: list[float]
) -> None:
    script.say("GET /v2/cpu/m/manifests/t", Answer(429, headers={"Retry-After": "3600"}), ok())
    with pytest.raises(WorldError, match="it answered 429"):
        registry.manifest("cpu/m", "t")
    assert pauses == []


def test_the_three_answers_are_three_types(script: Script, registry: Registry) -> None:
    line = "HEAD /v2/cpu/m/manifests/t"
    script.say(line, Answer(404))
    assert registry.head("cpu/m", "t") is None
    for status, kind in ((401, NotAllowedError), (403, NotAllowedError), (412, NoAnswerError)):
        script.say(line, Answer(status))
        with pytest.raises(kind):
            registry.head("cpu/m", "t")
    script.say(line, Answer(503))
    with pytest.raises(NoAnswerError):
        registry.head("cpu/m", "t")


UPLOADS = "/v2/cpu/m/blobs/uploads/"
LAYER = b"0123456789"
LAYER_DIGEST = f"sha256:{sha256_bytes(LAYER)}"
FINISH = f"?digest={LAYER_DIGEST.replace(':', '%3A')}"


def accepted(location: str = "/up", **headers: str) -> Answer:
    return Answer(202, headers={"Location": location, **headers})


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_blobs, "CHUNK_BYTES", 4)


@pytest.mark.usefixtures("small_chunks")
def test_a_large_blob_goes_in_chunks_and_the_last_one_closes_it(
    script: Script, registry: Registry
) -> None:
    script.say(f"GET /v2/a/blobs/{LAYER_DIGEST}", ok(LAYER))
    script.say(f"POST {UPLOADS}", accepted())
    script.say("PATCH /up", accepted("/up2"))
    script.say("PATCH /up2", accepted("/up3"))
    script.say(f"PUT /up3{FINISH}", Answer(201))
    assert registry.copy_blob("a", "cpu/m", LAYER_DIGEST) == len(LAYER)
    assert [body for body in script.bodies if body] == [b"0123", b"4567", b"89"]
    assert script.ranges == ["0-3", "4-7"]


def test_an_upload_goes_on_from_the_byte_that_the_registry_asks_for(
    script: Script, registry: Registry
) -> None:
    script.say(f"POST {UPLOADS}", accepted())
    script.say(f"PUT /up{FINISH}", Answer(502))
    script.say("GET /up", Answer(204, headers={"Location": "/up2", "Range": "0-5"}))
    script.say(f"PUT /up2{FINISH}", Answer(201))
    registry.put_blob("cpu/m", LAYER)
    assert [body for body in script.bodies if body] == [LAYER, b"6789"]


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_whose_answer_was_lost_is_not_sent_again(
    script: Script, registry: Registry
) -> None:
    script.say(f"GET /v2/a/blobs/{LAYER_DIGEST}", ok(LAYER))
    script.say(f"POST {UPLOADS}", accepted())
    script.say("PATCH /up", Answer(504), accepted("/up2"))
    script.say("GET /up", Answer(204, headers={"Range": "0-3"}))
    script.say(f"PUT /up2{FINISH}", Answer(201))
    registry.copy_blob("a", "cpu/m", LAYER_DIGEST)
    assert [body for body in script.bodies if body] == [b"0123", b"4567", b"89"]


def test_an_upload_whose_last_answer_was_lost_is_found_done(
    script: Script, registry: Registry
) -> None:
    script.say(f"POST {UPLOADS}", accepted())
    script.say(f"PUT /up{FINISH}", Answer(504))
    script.say(f"HEAD /v2/cpu/m/blobs/{LAYER_DIGEST}", Answer(200))
    assert registry.put_blob("cpu/m", LAYER) == LAYER_DIGEST
    assert script.bodies.count(LAYER) == 1


def test_an_upload_that_the_registry_forgot_starts_anew(script: Script, registry: Registry) -> None:
    script.say(f"POST {UPLOADS}", accepted(), accepted("/new"))
    script.say(f"PUT /up{FINISH}", Answer(502))
    script.say(f"PUT /new{FINISH}", Answer(201))
    assert registry.put_blob("cpu/m", LAYER) == LAYER_DIGEST
    assert script.bodies.count(LAYER) == 2


def test_a_registry_that_forgets_every_upload_is_told_so(
    script: Script, registry: Registry
) -> None:
    script.say(f"POST {UPLOADS}", accepted())
    script.say(f"PUT /up{FINISH}", Answer(502))
    with pytest.raises(NoAnswerError, match="the registry forgot 5 uploads"):
        registry.put_blob("cpu/m", LAYER)


def test_a_retry_after_beyond_the_deadline_is_not_waited_for_in_an_upload(
    script: Script, registry: Registry, pauses: list[float]
) -> None:
    script.say(f"POST {UPLOADS}", accepted())
    script.say(f"PUT /up{FINISH}", Answer(429, headers={"Retry-After": "3600"}))
    with pytest.raises(NoAnswerError, match="it answered 429"):
        registry.put_blob("cpu/m", LAYER)
    assert pauses == []


def test_a_busy_registry_is_waited_for_between_two_chunks(
    script: Script, registry: Registry, pauses: list[float]
) -> None:
    script.say(f"POST {UPLOADS}", accepted())
    busy = Answer(429, headers={"Retry-After": "7"})
    script.say(f"PUT /up{FINISH}", busy, Answer(201))
    script.say("GET /up", Answer(204, headers={"Range": "0-0"}))
    registry.put_blob("cpu/m", LAYER)
    assert pauses == [7.0]


def test_an_empty_blob_is_uploaded_too(script: Script, registry: Registry) -> None:
    script.say(f"POST {UPLOADS}", accepted())
    empty = f"sha256:{sha256_bytes(b'')}"
    script.say(f"PUT /up?digest={empty.replace(':', '%3A')}", Answer(201))
    assert registry.put_blob("cpu/m", b"") == empty


def test_a_download_that_was_cut_goes_on_where_it_stopped(
    script: Script, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_blobs, "CHUNK_BYTES", 4)
    line = f"GET /v2/a/blobs/{LAYER_DIGEST}"
    script.say(line, Answer(200, LAYER[:6], {"Cut": "10"}), Answer(206, LAYER[4:]))
    registry.save_blob("a", LAYER_DIGEST, tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == LAYER
    assert script.ranges == ["bytes=4-"]


def test_referrers_are_read_from_the_api_or_from_the_tag_that_stands_for_it(
    script: Script, registry: Registry
) -> None:
    entry = {"mediaType": OCI_MANIFEST, "digest": OTHER, "size": 2, "artifactType": "a/b"}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    script.say(f"GET /v2/cpu/m/referrers/{DIGEST}", Answer(200, index))
    (found,) = referrers(registry, "cpu/m", DIGEST)
    assert (found.digest, found.artifact_type) == (OTHER, "a/b")
    assert referrers(registry, "cpu/m", DIGEST, "c/d") == ()
    script.say(f"GET /v2/cpu/m/referrers/{DIGEST}", Answer(404))
    assert referrers(registry, "cpu/m", DIGEST) == ()
    tag = f"GET /v2/cpu/m/manifests/{DIGEST.replace(':', '-')}"
    script.say(tag, Answer(200, index, {"Content-Type": OCI_INDEX}))
    assert referrers(registry, "cpu/m", DIGEST, "a/b") == (found,)


def test_a_registry_that_does_not_know_referrers_is_not_asked_for_another_list(
    script: Script, registry: Registry
) -> None:
    line = f"GET /v2/cpu/m/referrers/{DIGEST}"
    script.say(line, Answer(404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}'))
    for _ in range(2):
        assert registry.referring("cpu/m", DIGEST) is None
    assert script.seen.count(line) == 2  # it knows the address, not the image
    script.say(line, Answer(404, b"404 page not found\n"))
    for _ in range(2):
        assert registry.referring("cpu/m", DIGEST) is None
    assert script.seen.count(line) == 3


def test_several_are_asked_for_side_by_side_and_told_in_their_order(
    script: Script, registry: Registry
) -> None:
    together, names = threading.Barrier(4, timeout=10), tuple("abcdefgh")
    for name in names:
        script.say(
            f"HEAD /v2/cpu/{name}/manifests/t",
            Answer(200, headers={"Docker-Content-Digest": f"sha256:{name * 64}"}),
        )

    def ask(name: str) -> str | None:
        together.wait()
        return registry.head(f"cpu/{name}", "t")

    assert registry.each(ask, names) == tuple(f"sha256:{name * 64}" for name in names)


def test_threads_share_a_login(script: Script, known: Registry) -> None:
    """A token is asked for once, whichever thread comes first."""
    realm = f'Bearer realm="http://{script.host}/token",service="reg"'
    token = "GET /token?service=reg&scope=repository%3Acpu%2Fm%3Apull"
    script.say(token, Answer(200, b'{"token": "t0ken"}'))
    head = Answer(200, headers={"Docker-Content-Digest": DIGEST})
    script.say("HEAD /v2/cpu/m/manifests/t", Answer(401, headers={"WWW-Authenticate": realm}), head)
    assert known.head("cpu/m", "t") == DIGEST
    together = threading.Barrier(4, timeout=10)

    def ask(_: int) -> str | None:
        together.wait()
        return known.head("cpu/m", "t")

    assert known.each(ask, range(4)) == (DIGEST,) * 4
    assert script.seen.count(token) == 1


def test_who_was_refused_before_another_thread_logged_in_asks_once_more(
    docker_config: Path, script: Script
) -> None:
    with requests.Session() as session:
        login = Login(script.host, docker_config, session)
    scopes, challenge = ("repository:cpu/m:pull",), 'Basic realm="toys"'
    assert login.answer(challenge, scopes, None)
    assert login.answer(challenge, scopes, None)  # sent without a header by a second thread
    assert not login.answer(challenge, scopes, login.header(scopes))


def test_after_one_that_failed_no_other_begins(registry: Registry) -> None:
    begun = list[int]()

    def ask(number: int) -> None:
        begun.append(number)
        if number == 0:
            raise LookupError("the first one")
        time.sleep(0.05)

    with pytest.raises(LookupError, match="the first one"):
        registry.each(ask, range(20))
    assert len(begun) <= 4


def test_a_failure_is_raised_when_those_beside_it_have_ended(registry: Registry) -> None:
    """The lock of a promotion is let go then: a tag that is set later would undo what the next one does."""
    both, ended = threading.Barrier(2, timeout=10), list[int]()

    def ask(number: int) -> None:
        both.wait()
        if number == 0:
            raise LookupError("the first one")
        time.sleep(0.2)
        ended.append(number)

    with pytest.raises(LookupError, match="the first one"):
        registry.each(ask, range(2))
    assert ended == [1]


def test_a_referrers_answer_that_is_no_index_is_never_read_as_none(
    script: Script, registry: Registry
) -> None:
    for answer in (Answer(403), Answer(500), Answer(200, b"<html>")):
        script.say(f"GET /v2/cpu/m/referrers/{DIGEST}", answer)
        with pytest.raises(WorldError):
            referrers(registry, "cpu/m", DIGEST)


def test_the_catalog_is_read_page_by_page(script: Script, registry: Registry) -> None:
    link = {"Link": '</v2/_catalog?n=100&last=b>; rel="next"'}
    script.say("GET /v2/_catalog?n=100", Answer(200, b'{"repositories":["b","a"]}', link))
    script.say("GET /v2/_catalog?n=100&last=b", Answer(200, b'{"repositories":["c"]}'))
    assert registry.repositories() == ("a", "b", "c")


def test_what_cannot_be_deleted_is_no_error_and_no_success(
    script: Script, registry: Registry
) -> None:
    script.say("DELETE /v2/cpu/m/manifests/t", Answer(400))
    assert not registry.delete("cpu/m", "t")
    script.say(f"DELETE /v2/cpu/m/manifests/{DIGEST}", Answer(405), Answer(202), Answer(404))
    assert [registry.delete("cpu/m", DIGEST) for _ in range(3)] == [False, True, True]
    script.say(f"DELETE /v2/cpu/m/manifests/{DIGEST}", Answer(412))
    with pytest.raises(NoAnswerError, match="a policy of the registry blocks it"):
        registry.delete("cpu/m", DIGEST)


def test_a_body_that_is_not_its_digest_is_refused(script: Script, registry: Registry) -> None:
    script.say(f"GET /v2/cpu/m/manifests/{OTHER}", ok())
    script.say("GET /v2/cpu/m/manifests/t", ok(Docker_Content_Digest=OTHER))
    script.say(f"GET /v2/cpu/m/blobs/{OTHER}", ok())
    script.say(f"HEAD /v2/cpu/m/manifests/{OTHER}", ok(Docker_Content_Digest=DIGEST))
    with pytest.raises(WorldError, match=f"it gave {DIGEST}"):
        registry.manifest("cpu/m", OTHER)
    with pytest.raises(WorldError, match=f"it gave {DIGEST}"):
        registry.manifest("cpu/m", "t")
    with pytest.raises(WorldError, match=f"it gave {DIGEST}"):
        registry.blob("cpu/m", OTHER)
    with pytest.raises(WorldError, match=f"it gave {DIGEST}"):
        registry.head("cpu/m", OTHER)


def test_a_stored_manifest_whose_digest_is_told_wrong_is_refused(
    script: Script, registry: Registry
) -> None:
    told = Answer(201, headers={"Docker-Content-Digest": OTHER})
    script.say("PUT /v2/cpu/m/manifests/t", told)
    with pytest.raises(WorldError, match=f"it gave {OTHER}"):
        registry.put_manifest("cpu/m", "t", BODY, OCI_MANIFEST)


def test_a_bearer_challenge_is_answered_with_a_token(script: Script, known: Registry) -> None:
    realm = f'Bearer realm="http://{script.host}/token",service="reg",scope="x"'
    line = "GET /token?service=reg&scope=repository%3Acpu%2Fm%3Apull"
    script.say("GET /v2/cpu/m/manifests/t", Answer(401, headers={"WWW-Authenticate": realm}), ok())
    script.say(line, Answer(200, b'{"token": "t0ken"}'))
    assert known.manifest("cpu/m", "t") is not None
    assert known.manifest("cpu/m", "t") is not None
    assert script.authorizations == [
        "",
        f"Basic {PAIR}",
        "Bearer t0ken",
        "Bearer t0ken",
    ]


def test_a_mount_asks_for_rights_on_both_repositories(script: Script, known: Registry) -> None:
    realm = f'Bearer realm="http://{script.host}/token",service="reg"'
    token = (
        "GET /token?service=reg&scope=repository%3Apublic%3Apull%2Cpush"
        "&scope=repository%3Astaging%3Apull"
    )
    mount = f"POST /v2/public/blobs/uploads/?mount={DIGEST.replace(':', '%3A')}&from=staging"
    script.say(mount, Answer(401, headers={"WWW-Authenticate": realm}), Answer(201))
    script.say(token, Answer(200, b'{"access_token": "t0ken"}'))
    assert known.mount_blob("public", DIGEST, "staging")


def test_a_mount_that_became_an_upload_is_cancelled(script: Script, registry: Registry) -> None:
    mount = f"POST /v2/public/blobs/uploads/?mount={DIGEST.replace(':', '%3A')}&from=staging"
    upload = "/v2/public/blobs/uploads/u1?_state=s"
    script.say(mount, Answer(202, headers={"Location": upload}))
    assert not registry.mount_blob("public", DIGEST, "staging")
    assert script.seen == [mount, f"DELETE {upload}"]


def test_a_basic_challenge_is_answered_with_the_docker_login(
    script: Script, known: Registry
) -> None:
    asked = Answer(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    script.say("PUT /v2/cpu/m/manifests/t", asked, Answer(201))
    known.put_manifest("cpu/m", "t", BODY, OCI_MANIFEST)
    assert script.authorizations == ["", f"Basic {PAIR}"]
    assert script.bodies == [BODY, BODY]


def test_credentials_never_appear_in_errors(script: Script, known: Registry) -> None:
    asked = Answer(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    echo = {"errors": [{"code": "NO", "message": f"Basic {PAIR} or {PASSWORD}"}]}
    script.say("GET /v2/cpu/m/manifests/t", asked, Answer(403, json.dumps(echo).encode()))
    with pytest.raises(WorldError, match="this account may not") as caught:
        known.manifest("cpu/m", "t")
    assert "NO: Basic *** or ***" in str(caught.value)
    assert PAIR not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_another_host_never_sees_our_credentials(
    script: Script, foreign: Script, known: Registry
) -> None:
    realm = f'Bearer realm="http://{foreign.host}/token",service="x"'
    login = Answer(401, headers={"WWW-Authenticate": 'Basic realm="r"'})
    upload = Answer(202, headers={"Location": f"http://{foreign.host}/upload"})
    query = f"?digest={DIGEST.replace(':', '%3A')}"
    script.say("POST /v2/cpu/m/blobs/uploads/", login, upload)
    foreign.say(f"PUT /upload{query}", Answer(401, headers={"WWW-Authenticate": realm}))
    with pytest.raises(WorldError, match="may not take blob"):
        known.put_blob("cpu/m", BODY)
    assert foreign.seen == [f"PUT /upload{query}"]
    assert foreign.authorizations == [""]


def test_tags_are_read_page_by_page(script: Script, registry: Registry) -> None:
    link = {"Link": '</v2/cpu/m/tags/list?n=100&last=b>; rel="next"'}
    script.say("GET /v2/cpu/m/tags/list?n=100", Answer(200, b'{"tags":["b","a"]}', link))
    script.say("GET /v2/cpu/m/tags/list?n=100&last=b", Answer(200, b'{"tags":["c"]}'))
    assert registry.tags("cpu/m") == ("a", "b", "c")


def test_tag_pages_in_a_circle_are_reported(script: Script, registry: Registry) -> None:
    link = {"Link": '</v2/cpu/m/tags/list?n=100>; rel="next"'}
    script.say("GET /v2/cpu/m/tags/list?n=100", Answer(200, b'{"tags":["a"]}', link))
    with pytest.raises(WorldError, match="pages in a circle"):
        registry.tags("cpu/m")


def test_an_answer_that_is_no_tag_list_is_reported(script: Script, registry: Registry) -> None:
    script.say("GET /v2/cpu/m/tags/list?n=100", Answer(200, b"<html>"))
    with pytest.raises(WorldError, match="without a list of tags"):
        registry.tags("cpu/m")


def test_a_blob_that_changes_on_its_way_is_refused(
    script: Script, foreign: Script, registry: Registry, tmp_path: Path
) -> None:
    script.say(f"GET /v2/staging/blobs/{OTHER}", ok(b"tampered"))
    foreign.say("POST /v2/public/blobs/uploads/", Answer(202, headers={"Location": "/up"}))
    target = Registry(foreign.host, docker_config=tmp_path / "none.json")
    with pytest.raises(WorldError, match="asking the registry for blob") as caught:
        registry.copy_blob("staging", "public", OTHER, target=target)
    target.close()
    assert caught.value.where == script.host


def test_a_registry_that_is_down_is_named_with_the_way_to_start_it(
    tmp_path: Path, pauses: list[float]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    registry = Registry(host, docker_config=tmp_path / "none", sleep=pauses.append)
    with pytest.raises(WorldError) as caught:
        registry.greeting()
    registry.close()
    assert caught.value.where == host
    assert "no answer: ConnectionError" in caught.value.message
    assert caught.value.hint == "is it running? `./bootstrap` starts the local one"
    assert len(pauses) == ATTEMPTS - 1
    assert ATTEMPTS * CONNECT_TIMEOUT_S + sum(pauses) < 10


def test_the_machine_of_a_reader_gets_the_login_of_one_host_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = base64.b64encode(b"me:secret").decode()
    auths = {"registry.test": {"auth": pair}, "other.test": {"auth": pair}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert json.loads(login_file("registry.test")) == {"auths": {"registry.test": {"auth": pair}}}
    assert json.loads(login_file("third.test")) == {"auths": {}}


def test_a_registry_that_asks_for_login_is_there(script: Script, registry: Registry) -> None:
    script.say("GET /v2/", Answer(401))
    registry.greeting()


def test_what_is_no_registry_does_not_ping(registry: Registry) -> None:
    with pytest.raises(WorldError, match="it answered 404"):
        registry.greeting()


@pytest.mark.parametrize(
    "form", [quote, partial(quote, safe=""), lambda word: json.dumps(word)[1:-1]]
)
def test_a_password_is_hidden_in_the_forms_in_which_it_may_come_back(
    script: Script, tmp_path: Path, form: Callable[[str], str]
) -> None:
    """In the registry's words, and in the line of its status."""
    secret = "p/ss &wörd"
    pair = base64.b64encode(f"ci:{secret}".encode()).decode()
    path = config(tmp_path, auths={script.host: {"auth": pair}})
    said = f"Basic {pair} {form(secret)}"
    echo = json.dumps({"errors": [{"code": "NO", "message": said}]}).encode()
    asked = Answer(401, headers={"WWW-Authenticate": "Basic realm=x"})
    script.say("GET /v2/toys/manifests/t", asked, Answer(403, echo, reason=f"No {said}"))
    client = Registry(script.host, docker_config=path)
    with pytest.raises(NotAllowedError) as caught:
        client.manifest("toys", "t")
    client.close()
    assert "No Basic *** ***" in caught.value.message
    assert caught.value.details == "NO: Basic *** ***"


def test_a_base_with_a_path_or_a_password_is_refused_without_repeating_it() -> None:
    for base in ("registry.test/flagrelease", "user:secret@registry.test"):
        with pytest.raises(UsageError) as caught:
            Registry(base)
        assert base not in str(caught.value)


def test_a_broken_docker_configuration_is_named_and_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text in ('{"auths": {"h": {"auth": "c2VjcmV0"}}}', '{"auths": "c2VjcmV0"', "[]"):
        path.write_text(text)
        with pytest.raises(WorldError) as caught:
            read_credentials(path, "h")
        assert caught.value.where == str(path)
        assert "c2VjcmV0" not in str(caught.value)


def test_credentials_of_other_hosts_are_not_used(docker_config: Path) -> None:
    assert read_credentials(docker_config, "registry.test") is None


def helper(folder: Path, name: str, script: str) -> None:
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\nread host\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answer = """echo '{"ServerURL":"'$host'","Username":"robot-'$host'","Secret":"s3cret"}'"""
    helper(tmp_path, "vault", answer)
    helper(tmp_path, "empty", "echo credentials not found in native keychain; exit 1")
    helper(tmp_path, "broken", "echo s3cret is locked; exit 1")
    return tmp_path


def config(folder: Path, **content: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(content))
    return path


def test_credential_helpers_go_before_what_is_written_and_the_hosts_own_before_the_store(
    helpers: Path,
) -> None:
    written = {"h": {"auth": PAIR}, "other": {"auth": PAIR}}
    path = config(helpers, credHelpers={"h": "vault"}, credsStore="empty", auths=written)
    assert read_credentials(path, "h") == Credentials(username="robot-h", secret="s3cret")
    assert read_credentials(path, "other") == Credentials(username="robot$ci", secret=PASSWORD)
    assert read_credentials(path, "third") is None


def test_a_helper_that_fails_is_named_and_what_it_said_is_not(helpers: Path) -> None:
    with pytest.raises(WorldError, match="docker-credential-broken gave none") as caught:
        read_credentials(config(helpers, credsStore="broken"), "h")
    assert "s3cret" not in str(caught.value)


def test_a_helper_that_is_not_installed_is_passed_over(helpers: Path) -> None:
    path = config(helpers, credsStore="absent", auths={"h": {"auth": PAIR}})
    assert read_credentials(path, "h") == Credentials(username="robot$ci", secret=PASSWORD)
    assert read_credentials(path, "other") is None


def test_a_secret_never_shows_in_a_representation() -> None:
    assert "s3cret" not in repr(Credentials(username="ci", secret="s3cret"))


def test_the_login_of_one_host_is_what_docker_reads(
    helpers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(helpers))
    config(helpers, auths={"h": {"auth": PAIR}, "i": {"identitytoken": "t0ken"}})
    assert json.loads(login_file("h")) == {"auths": {"h": {"auth": PAIR}}}
    assert json.loads(login_file("i")) == {"auths": {"i": {"identitytoken": "t0ken"}}}
    assert json.loads(login_file("none")) == {"auths": {}}


def test_an_identity_token_is_traded_and_never_sent_as_a_password(
    script: Script, tmp_path: Path
) -> None:
    path = config(tmp_path, auths={script.host: {"identitytoken": "ident"}})
    realm = f'Bearer realm="http://{script.host}/token",service="reg"'
    script.say("GET /v2/cpu/m/manifests/t", Answer(401, headers={"WWW-Authenticate": realm}), ok())
    script.say("POST /token", Answer(200, b'{"access_token": "t0ken"}'))
    client = Registry(script.host, docker_config=path)
    assert client.manifest("cpu/m", "t") is not None
    client.close()
    assert script.authorizations == ["", "", "Bearer t0ken"]
    assert b"grant_type=refresh_token&refresh_token=ident" in script.bodies[1]


def test_an_expired_token_is_traded_anew(script: Script, known: Registry) -> None:
    realm = f'Bearer realm="http://{script.host}/token",service="reg",scope="x"'
    asked = Answer(401, headers={"WWW-Authenticate": realm})
    script.say("GET /v2/cpu/m/manifests/t", asked, ok(), asked, ok())
    line = "GET /token?service=reg&scope=repository%3Acpu%2Fm%3Apull"
    script.say(line, Answer(200, b'{"token": "first"}'), Answer(200, b'{"token": "second"}'))
    known.manifest("cpu/m", "t")
    known.manifest("cpu/m", "t")
    assert [word for word in script.authorizations if word.startswith("Bearer")] == [
        "Bearer first",
        "Bearer first",
        "Bearer second",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:5000/a/b:t", ("127.0.0.1:5000", "a/b", "t", None)),
        (f"registry.test/a@{DIGEST}", ("registry.test", "a", None, DIGEST)),
        (f"localhost/a-b:v1.0@{DIGEST}", ("localhost", "a-b", "v1.0", DIGEST)),
        ("[::1]:5000/a", ("[::1]:5000", "a", None, None)),
    ],
)
def test_a_reference_is_taken_apart_and_written_back(
    text: str, expected: tuple[str, str, str | None, str | None]
) -> None:
    reference = parse_reference(text)
    registry, repository, tag, digest = expected
    assert reference == Reference(registry=registry, repository=repository, tag=tag, digest=digest)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    ["debian:bookworm", "a/b", "registry.test/A", "registry.test/a@sha256:12", "", "h:1/a:"],
)
def test_what_names_no_registry_and_repository_is_no_reference(text: str) -> None:
    with pytest.raises(UsageError, match="is none"):
        parse_reference(text)


def test_the_fake_has_every_method_that_would_reach_the_network() -> None:
    # These two are computed from `manifest`, which the fake has.
    shared = {"stored_bytes", "config_digest"}
    public = {name for name in vars(Registry) if not name.startswith("_")}
    assert public - shared <= vars(FakeRegistry).keys()


PAGE = Answer(200, b"<html>Please sign in</html>", {"Content-Type": "text/html; charset=utf-8"})


@pytest.mark.parametrize("asked", ["manifest", "head", "has_blob", "greeting"])
def test_a_page_of_a_portal_on_the_way_is_no_answer(
    script: Script, registry: Registry, asked: str
) -> None:
    for method in ("HEAD", "GET"):
        script.say(f"{method} /v2/toys/manifests/latest", PAGE)
        script.say(f"{method} /v2/toys/blobs/{DIGEST}", PAGE)
        script.say(f"{method} /v2/", PAGE)
    questions = {
        "manifest": lambda: registry.manifest("toys", "latest"),
        "head": lambda: registry.head("toys", "latest"),
        "has_blob": lambda: registry.has_blob("toys", DIGEST),
        "greeting": registry.greeting,
    }
    with pytest.raises(NoAnswerError, match="answered 200 with a web page") as caught:
        questions[asked]()
    assert "a proxy or a login portal on the way" in caught.value.hint
