"""When a release with nothing to do is known again, and every change after which it is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from pipeline import noop
from pipeline.canonical import write_whole
from pipeline.errors import WorldError
from pipeline.options import Options
from pipeline.release_index import Tombstone
from pipeline.world import engine, git, registry
from pipeline.world.journal import Burial
from pipeline.world.tag_moves import bury
from tests.fakes import FakeEngine
from tests.fakes_registry import FakeRegistry, push_image
from tests.projects import toy_project

HOST = "registry.test"
PLAIN = Options(command="release")
INDEX = noop.PublicTag(
    cell="", host=HOST, repository="toys/releases", tag="rel-2026.11.24.1", digest=""
)
DONE = noop.Done(
    release="2026.11.24.1",
    stages=11,
    files=("weights",),
    programs=("beads-smi",),
    tags=(),
    index=INDEX,
    state="",
)


class Engine27(FakeEngine):
    builder = "docker-classic 27"


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """The registry, with the release index and one image in it."""
    found = FakeRegistry(HOST)
    monkeypatch.setattr(registry, "Registry", lambda _host: found)
    return found


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: FakeRegistry) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine.Engine, "connect", FakeEngine)
    monkeypatch.setattr(git, "tags_of_head", lambda: ())
    toy_project(tmp_path)
    (tmp_path / "weights").write_bytes(b"w")
    write_whole(tmp_path / "out/2026.11.24.1/abacus/poet/record.json", b"{}")
    keep(PLAIN, public)
    return tmp_path


def keep(options: Options, public: FakeRegistry) -> None:
    found = noop.state(options, DONE.files, DONE.programs)
    index = push_image(public, INDEX.repository, b"index", tag=INDEX.tag)
    image = push_image(public, "toys/poet", b"image", tag="2026.11.24.1")
    tag = replace(INDEX, cell="abacus/poet", repository="toys/poet", tag=DONE.release, digest=image)
    done = replace(DONE, state=found, tags=(tag,), index=replace(INDEX, digest=index))
    write_whole(noop._place(options), json.dumps(asdict(done)).encode())


def replaced(path: str) -> Callable[[], None]:
    """The same bytes, written anew, with the time of the old file."""

    def act() -> None:
        file = Path(path)
        before = file.stat()
        write_whole(file, file.read_bytes())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return act


def tool() -> None:
    program = Path("beads-smi")
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    os.environ["PATH"] = f"{Path.cwd()}:{os.environ['PATH']}"


def test_it_is_known_while_nothing_changes() -> None:
    assert noop.known(PLAIN) is not None
    assert noop.known(Options(command="release", cells=["abacus", "*"])) is None


@pytest.mark.parametrize(
    "change",
    [
        replaced("matrix.yaml"),
        replaced("weights"),
        replaced("templates/model.Dockerfile.j2"),
        replaced("out/2026.11.24.1/abacus/poet/record.json"),
        lambda: Path("weights").unlink(),
        lambda: Path("matrix.lock").write_text("{}"),
        lambda: Path("images/serving/more.py").write_text("1"),
        lambda: write_whole(Path("out/2026.11.24.2/abacus/poet/record.json"), b"{}"),
        tool,
    ],
)
def test_a_changed_file_ends_it(
    change: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"])
    change()
    assert noop.known(PLAIN) is None


def test_a_release_index_that_is_gone_or_another_ends_it(public: FakeRegistry) -> None:
    push_image(public, INDEX.repository, b"another index", tag=INDEX.tag)
    assert noop.known(PLAIN) is None
    del public.content[INDEX.repository]
    assert noop.known(PLAIN) is None


@pytest.mark.parametrize("place", [("toys/poet", "2026.11.24.1"), (INDEX.repository, INDEX.tag)])
def test_a_tombstone_of_the_image_or_of_the_release_ends_it(
    public: FakeRegistry, place: tuple[str, str]
) -> None:
    stone = Tombstone(
        event="yanked",
        release=DONE.release,
        cell="abacus/poet",
        digest=str(public.head(*place)),
        by="Ada",
        reason="wrong answers",
        time="2026-11-24T12:00:00+00:00",
        replaced_by=None,
    )
    bury(public, Burial(repository=place[0], tombstone=stone))
    assert noop.known(PLAIN) is None


def test_another_engine_tag_of_git_or_start_of_the_machine_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place, name, value in (
        (engine.Engine, "connect", Engine27),
        (git, "tags_of_head", lambda: ("2026.11.25.1",)),
        (noop, "_boot", lambda: "another"),
    ):
        with monkeypatch.context() as changed:
            changed.setattr(place, name, value)
            assert noop.known(PLAIN) is None
    assert noop.known(PLAIN) is not None


def test_without_an_engine_nothing_is_known_and_nothing_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent() -> FakeEngine:
        raise WorldError("does not answer")

    monkeypatch.setattr(engine.Engine, "connect", absent)
    assert noop.known(PLAIN) is None
    assert noop.before(PLAIN) == ""


def test_a_file_of_another_version_is_passed_over() -> None:
    write_whole(noop._place(PLAIN), b'{"release": "2026.11.24.1"}')
    assert noop.known(PLAIN) is None
    write_whole(noop._place(PLAIN), b"half")
    assert noop.known(PLAIN) is None


@pytest.mark.parametrize(
    "options",
    [
        Options(command="promote"),
        Options(command="release", until="smoke"),
        Options(command="release", dry_run=True),
        Options(command="release", node="shed"),
        Options(command="release", again=True),
    ],
)
def test_only_the_plain_command_is_asked_for(options: Options) -> None:
    assert not noop.may_be_known(options)
    assert noop.may_be_known(PLAIN)
