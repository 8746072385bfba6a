"""Hubs, where cards go: what one must be able to do, and how a repository there comes to hold exactly our files.

`hub_folder`, `hub_huggingface` and `hub_modelscope` are the three hubs that there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Protocol

import tenacity

from pipeline.canonical import sha256_bytes
from pipeline.errors import StageRefusedError, UsageError, WorldError
from pipeline.results import FileHash, Publication

OURS = ("card*", "README*")
ATTEMPTS = 4
LONGEST_PAUSE_S = 60.0
PAUSE = tenacity.wait_exponential_jitter(initial=1, max=10, jitter=0.5)


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file as a hub must hold it: bytes for what is small, a path for weights."""

    content: bytes | Path
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, content: bytes) -> HubFile:
        return cls(content=content, sha256=sha256_bytes(content), size_bytes=len(content))


@dataclass(frozen=True, kw_only=True)
class Repository:
    """What a hub has under a name."""

    files: Mapping[str, str | None]  # path → SHA-256; None: the hub does not say
    is_private: bool | None = None  # None: this hub knows no such thing
    head: str = ""  # its newest commit; "": the hub does not say


@dataclass(frozen=True, kw_only=True)
class Change:
    """One commit. `head` is what the repository was compared at."""

    files: Mapping[str, HubFile]
    removed: Sequence[str]
    message: str
    head: str


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How a repository is made."""

    is_private: bool
    license: str  # SPDX identifier


class BusyHubError(WorldError):
    """A hub that is busy, was overtaken by another commit, or cannot be reached: worth asking again."""

    def __init__(self, message: str, *, retry_after_s: float = 0, **texts: str) -> None:
        super().__init__(message, **texts)
        self.retry_after_s = retry_after_s


class Hub(Protocol):
    """Everything raises WorldError, BusyHubError where asking again may help; no text of theirs holds a token."""

    @property
    def name(self) -> str: ...
    @property
    def is_private(self) -> bool: ...
    @property
    def takes_weights(self) -> bool: ...
    def location(self, name: str) -> str: ...
    def look(self, name: str) -> Repository | None: ...
    def create(self, name: str, terms: Terms) -> None: ...
    def commit(self, name: str, change: Change) -> None: ...
    def read(self, name: str, path: str) -> bytes | None: ...


def publish(
    hub: Hub,
    name: str,
    files: Mapping[str, HubFile],
    terms: Terms,
    *,
    message: str,
    sleep: Callable[[float], None] = time.sleep,
) -> Publication:
    """Make the repository hold these files, read back; other files in it stay. What it holds already is not sent.

    A passing fault starts anew from what the hub then holds, so nothing is uploaded or committed twice.
    """
    _check_names(hub, name, files)
    is_changed = False
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BusyHubError),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=_pause_s,
        sleep=sleep,
        reraise=True,
    ):
        with attempt:
            change = _change(hub, name, files, _found_or_made(hub, name, terms), message)
            if change.files or change.removed:
                is_changed = True
                hub.commit(name, change)
                _compare(hub, name, change.files)
    return Publication(
        hub=hub.name,
        location=hub.location(name),
        changed=is_changed,
        files=tuple(
            FileHash(path=path, sha256=file.sha256, size_bytes=file.size_bytes)
            for path, file in sorted(files.items())
        ),
    )


def held(hub: Hub, name: str, published: Publication) -> Repository | None:
    """The repository, if it still has what was read back from it."""
    found = hub.look(name)
    if found is None:
        return None
    is_same = all(
        file.path in found.files and _sha256(hub, name, file.path, found) == file.sha256
        for file in published.files
    )
    return found if is_same else None


def _found_or_made(hub: Hub, name: str, terms: Terms) -> Repository:
    found = hub.look(name)
    if found is None:
        hub.create(name, terms)
        found = hub.look(name) or Repository(files={})
    if found.is_private is not None and found.is_private != terms.is_private:
        seen, wanted = (
            "private" if is_private else "public"
            for is_private in (found.is_private, terms.is_private)
        )
        raise StageRefusedError(
            f"publishing a card: the repository is {seen} and must be {wanted}",
            where=hub.location(name),
            hint=f"make it {wanted} on its settings page, or set `visibility: {seen}` in matrix.yaml",
        )
    return found


def _change(
    hub: Hub, name: str, files: Mapping[str, HubFile], found: Repository, message: str
) -> Change:
    return Change(
        files={
            path: file
            for path, file in sorted(files.items())
            if path not in found.files or _sha256(hub, name, path, found) != file.sha256
        },
        removed=[path for path in sorted(found.files) if _is_ours(path) and path not in files],
        message=message,
        head=found.head,
    )


def _sha256(hub: Hub, name: str, path: str, found: Repository) -> str:
    """What the hub says; what it gives, where it does not say (both hubs say it of every large file)."""
    if said := found.files[path]:
        return said
    content = hub.read(name, path)
    return "" if content is None else sha256_bytes(content)


def _is_ours(path: str) -> bool:
    """Cards of earlier releases that are no longer written are removed, and nothing else."""
    return "/" not in path and any(fnmatchcase(path, pattern) for pattern in OURS)


def _compare(hub: Hub, name: str, files: Mapping[str, HubFile]) -> None:
    """Small files are read back whole; of weights the hub says what it stored."""
    found = hub.look(name) or Repository(files={})
    for path, file in files.items():
        if isinstance(file.content, bytes):
            seen = hub.read(name, path)
            came = "" if seen is None else sha256_bytes(seen)
        else:
            came = found.files.get(path) or ""
        if came != file.sha256:
            raise WorldError(
                "reading a published card back: expected"
                f" sha256 {file.sha256}, got {f'sha256 {came}' if came else 'nothing'}",
                where=f"{hub.location(name)}/{path}",
                hint="something else writes there, or what is stored gets lost; publish again",
            )


def _check_names(hub: Hub, name: str, files: Mapping[str, HubFile]) -> None:
    for path in (name, *files):
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts or "\\" in path:
            raise UsageError(
                f"publishing a card: {path!r} is no name below a hub",
                where=hub.name,
                hint="use a relative name such as step3-FlagOS",
            )


def _pause_s(state: tenacity.RetryCallState) -> float:
    """What the hub asks for, at least our own pause."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = error.retry_after_s if isinstance(error, BusyHubError) else 0.0
    return min(LONGEST_PAUSE_S, max(PAUSE(state), asked_s))
