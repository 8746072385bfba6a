"""Blobs on their way out of a registry and into one: in chunks, and after a fault from where it stopped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import urljoin

import requests
import tenacity

from pipeline.errors import NoAnswerError
from pipeline.world.oci import qualified
from pipeline.world.registry_connection import Call, Connection, PassingError, not_what_was_asked
from pipeline.world.registry_login import to_pull, to_push
from pipeline.world.registry_retries import DEADLINE_S, PAUSE

CHUNK_BYTES = 16 << 20
CHUNK_TIMEOUT_S = 300.0
FAULTS = 5  # of one chunk, one after another
STARTS = 5  # of an upload that the registry has forgotten
OCTETS = {"Content-Type": "application/octet-stream"}


def read_blob(connection: Connection, repository: str, digest: str) -> Iterator[bytes]:
    """A blob in chunks, hashed as it passes; what a cut connection left out is asked for alone."""
    seen, passed, faults = hashlib.sha256(), 0, 0
    while True:
        try:
            with closing(_from(connection, repository, digest, passed)) as response:
                for chunk in response.iter_content(CHUNK_BYTES):
                    seen.update(chunk)
                    passed, faults = passed + len(chunk), 0
                    yield chunk
            break
        except requests.RequestException as error:
            faults += 1
            if faults == FAULTS:
                raise NoAnswerError(
                    f"could not read blob {qualified(repository, digest)} to its end:"
                    f" stopped {faults} times after {passed} bytes",
                    where=connection.host,
                    details=type(error).__name__,
                    hint="run the same command again; blobs that arrived are not sent twice",
                ) from error
    if f"sha256:{seen.hexdigest()}" != digest:
        came = f"sha256:{seen.hexdigest()}"
        raise not_what_was_asked(connection.host, f"blob {qualified(repository, digest)}", came)


def _from(
    connection: Connection, repository: str, digest: str, offset_bytes: int
) -> requests.Response:
    call = Call(
        "GET",
        f"/v2/{repository}/blobs/{digest}",
        f"read blob {qualified(repository, digest)}",
        to_pull(repository),
        (206,) if offset_bytes else (200,),
        headers={"Range": f"bytes={offset_bytes}-"} if offset_bytes else {},
        stream=True,
        timeout_s=CHUNK_TIMEOUT_S,
    )
    return connection.ask(call)


def file_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def write_blob(
    connection: Connection, repository: str, digest: str, chunks: Callable[[], Iterable[bytes]]
) -> int:
    """Upload what `chunks` gives, each time it is called; returns the bytes of the blob.

    A registry may forget an upload, as docker-registry 2.8 does one that was cut inside a chunk: it starts anew.
    """
    forgotten: _Forgotten | None = None
    for _ in range(STARTS):
        upload = _Upload(connection, repository, digest)
        try:
            for chunk, is_last in _with_last(chunks()):
                upload.send(chunk, is_last=is_last)
        except _Forgotten as error:
            forgotten = error
        else:
            return upload.held_bytes
    raise NoAnswerError(
        f"could not bring blob {qualified(repository, digest)} over: the registry forgot {STARTS} uploads",
        where=connection.host,
        details=str(forgotten),
        hint="run the same command again; look at the network between here and the registry",
    ) from forgotten


def cancel_upload(connection: Connection, repository: str, response: requests.Response) -> None:
    """Of an upload that is not wanted. The registry clears it away by itself some day, so any answer will do."""
    any_answer = tuple(range(200, 600))
    doing, scopes = f"cancel an upload to {repository}", to_push(repository)
    connection.ask(Call("DELETE", _location(response), doing, scopes, any_answer, once=True))


class _Forgotten(Exception):  # noqa: N818 -- an event here, never an error of the caller
    pass


class _Upload:
    """One upload session; `held_bytes` is how much the registry is known to have."""

    def __init__(self, connection: Connection, repository: str, digest: str) -> None:
        self._connection = connection
        self._digest = digest
        self._blob = f"/v2/{repository}/blobs/{digest}"
        self._call = Call(
            "POST",
            uploads(repository),
            f"take blob {qualified(repository, digest)}",
            to_push(repository),
            (202,),
            timeout_s=CHUNK_TIMEOUT_S,
        )
        self._location = _location(connection.ask(self._call))
        self.held_bytes = 0

    def send(self, chunk: bytes, *, is_last: bool) -> None:
        """Raises _Forgotten when the registry has lost the upload; PassingError after too many faults."""
        start_bytes = self.held_bytes
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            stop=tenacity.stop_after_attempt(FAULTS) | _PausedEnough(),
            wait=_pause_s,
            sleep=self._connection.sleep,
            reraise=True,
        ):
            with attempt:
                again = attempt.retry_state.attempt_number > 1
                if again and self._is_done(start_bytes, len(chunk), is_last=is_last):
                    return
                self._write(chunk[self.held_bytes - start_bytes :], is_last=is_last)

    def _write(self, rest: bytes, *, is_last: bool) -> None:
        end_bytes = self.held_bytes + len(rest)
        place = {"Content-Range": f"{self.held_bytes}-{end_bytes - 1}"}
        call = replace(
            self._call,
            method="PUT" if is_last else "PATCH",
            url=self._location,
            accepts=(201,) if is_last else (202, 204),
            headers=OCTETS if is_last else OCTETS | place,
            params={"digest": self._digest} if is_last else {},
            body=rest,
            once=True,
        )
        self._location = _location(self._connection.ask(call))
        self.held_bytes = end_bytes

    def _is_done(self, start_bytes: int, size_bytes: int, *, is_last: bool) -> bool:
        """After a fault: ask how much arrived. True if nothing of the chunk is left to be said."""
        call = replace(self._call, method="GET", url=self._location, accepts=(200, 204, 404, 416))
        answer, end_bytes = self._connection.ask(call), start_bytes + size_bytes
        if answer.status_code in (404, 416):
            if not (is_last and self._is_there()):
                raise _Forgotten(f"after {start_bytes} bytes it answered {answer.status_code}")
            self.held_bytes = end_bytes
            return True
        self._location, held_bytes = _location(answer), _held_bytes(answer)
        if not start_bytes <= held_bytes <= end_bytes:
            raise _Forgotten(f"it has {held_bytes} bytes after it took {start_bytes}")
        self.held_bytes = held_bytes
        return held_bytes == end_bytes and not is_last

    def _is_there(self) -> bool:
        call = replace(self._call, method="HEAD", url=self._blob, accepts=(200, 404))
        return self._connection.ask(call).status_code == 200


def uploads(repository: str) -> str:
    return f"/v2/{repository}/blobs/uploads/"


def _location(response: requests.Response) -> str:
    return urljoin(response.url, response.headers.get("Location", ""))


def _held_bytes(answer: requests.Response) -> int:
    """`Range: 0-41` means 42 bytes. `0-0` is what registries say of none, and of one byte."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", ""))
    last = int(found[1]) if found else 0
    return last + 1 if last else 0


def _pause_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(PAUSE(state), error.wait_s if isinstance(error, PassingError) else 0.0)


class _PausedEnough(tenacity.stop.stop_base):
    """Counts pauses alone: a large chunk on a slow line may take longer, and is still worth a second attempt."""

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        return state.idle_for + state.upcoming_sleep >= DEADLINE_S


def _with_last(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each chunk, and whether it is the last one; a blob without any is one empty chunk."""
    waiting: bytes | None = None
    for chunk in chunks:
        if waiting is not None:
            yield waiting, False
        waiting = chunk
    yield waiting or b"", True
