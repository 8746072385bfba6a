"""When a release with nothing to do is known again, and every change after which it is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import pytest

from pipeline import noop
from pipeline.canonical import write_whole
from pipeline.errors import WorldError
from pipeline.options import Options
from pipeline.release_index import Tombstone
from pipeline.world import engine, git, standing, tag_moves
from pipeline.world.indexes import Indexes
from pipeline.world.journal import Burial, Journal, Operation
from pipeline.world.standing import Beside, PublicTag, Standing
from pipeline.world.tag_moves import bury, carry_out, finish_or_undo
from tests.fakes import FakeEngine
from tests.fakes_registry import FakeRegistry, push_image
from tests.projects import own_templates, project_in, toy_project
from tests.releases import Flow

HOST = "registry.test"
PLAIN = Options(command="release")
RELEASE, INDEXES = "2026.11.24.1", "toys/releases"
FILES, PROGRAMS = ("weights",), ("beads-smi",)


class Engine27(FakeEngine):
    builder = "docker-classic 27"


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    """The registry, with the release index and one image in it."""
    found = FakeRegistry(HOST)
    monkeypatch.setattr(standing, "Registry", lambda _host, **_: found)
    return found


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: FakeRegistry) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engine.Engine, "connect", FakeEngine)
    monkeypatch.setattr(git, "tags_of_head", lambda: ())
    toy_project(tmp_path)
    own_templates(tmp_path)
    (tmp_path / "weights").write_bytes(b"w")
    write_whole(tmp_path / "out/2026.11.24.1/abacus/poet/record.json", b"{}")
    keep(PLAIN, public)
    return tmp_path


def keep(options: Options, public: FakeRegistry) -> None:
    index = push_image(public, INDEXES, b"index", tag=f"rel-{RELEASE}")
    image = push_image(public, "toys/poet", b"image", tag=RELEASE)
    done = noop.Done(
        release=RELEASE,
        stages=11,
        files=FILES,
        programs=PROGRAMS,
        state=noop.state(options, FILES, PROGRAMS),
        public=Standing(
            host=HOST,
            index_repository=INDEXES,
            beside=Beside.read(public, INDEXES),
            tags=(
                PublicTag(cell="", repository=INDEXES, tag=f"rel-{RELEASE}", digest=index),
                PublicTag(cell="abacus/poet", repository="toys/poet", tag=RELEASE, digest=image),
            ),
        ),
    )
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
    push_image(public, INDEXES, b"another index", tag=f"rel-{RELEASE}")
    assert noop.known(PLAIN) is None
    del public.content[INDEXES]
    assert noop.known(PLAIN) is None


def test_a_tag_or_an_image_that_is_gone_ends_it(public: FakeRegistry) -> None:
    del public.content["toys/poet"].tags[RELEASE]
    assert noop.known(PLAIN) is None


def test_a_newer_release_of_anybody_ends_it(public: FakeRegistry) -> None:
    push_image(public, INDEXES, b"theirs", tag="rel-2026.11.25.1")
    assert noop.known(PLAIN) is None


def at(registry: FakeRegistry) -> Indexes:
    return Indexes(registry=registry, index_repository=INDEXES)


@pytest.mark.parametrize("event", ["yanked", "rolled_back"])
def test_a_withdrawal_ends_it_also_when_it_was_cut_off(
    public: FakeRegistry, event: Literal["yanked", "rolled_back"], tmp_path: Path
) -> None:
    operation = withdrawal_of(str(public.head("toys/poet", RELEASE)), event)
    carry_out(operation, at(public), Journal.begin(tmp_path, operation), lambda _: None)
    assert noop.known(PLAIN) is None
    keep(PLAIN, public)  # planned anew, and found in order
    assert noop.known(PLAIN) is not None
    again = withdrawal_of(str(public.head("toys/poet", RELEASE)), event, reason="still wrong")
    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(tag_moves, "bury", fails)
        with pytest.raises(WorldError):
            carry_out(again, at(public), Journal.begin(tmp_path, again), lambda _: None)
    assert noop.known(PLAIN) is None


def test_who_planned_in_the_middle_of_a_withdrawal_plans_again_after_it(
    public: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = withdrawal_of(str(public.head("toys/poet", RELEASE)), "yanked")

    def planned_before(registry: FakeRegistry, burial: Burial) -> None:
        keep(PLAIN, public)
        bury(registry, burial)

    monkeypatch.setattr(tag_moves, "bury", planned_before)
    carry_out(operation, at(public), Journal.begin(tmp_path, operation), lambda _: None)
    assert noop.known(PLAIN) is None


def test_a_withdrawal_that_is_finished_after_another_one_does_not_hide_it(
    public: FakeRegistry, tmp_path: Path
) -> None:
    """What was kept between the two rests on the first one's words, which are said again when it is finished."""
    mine = withdrawal_of(str(public.head("toys/poet", RELEASE)), "yanked")
    theirs = withdrawal_of(push_image(public, "toys/poet", b"other"), "yanked")
    journal = Journal.begin(tmp_path / "mine", mine)
    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(Journal, "end", fails)
        with pytest.raises(WorldError):
            carry_out(mine, at(public), journal, lambda _: None)
    keep(PLAIN, public)
    carry_out(theirs, at(public), Journal.begin(tmp_path / "theirs", theirs), lambda _: None)
    finish_or_undo(tmp_path / "mine", at(public), lambda _: None)
    assert noop.known(PLAIN) is None


def test_nothing_is_remembered_in_the_middle_of_a_withdrawal(project: Path) -> None:
    """It may be cut off after it has withdrawn one more image, and tell nobody."""
    (project / "out/2026.11.24.1/abacus/poet/record.json").unlink()
    run = Flow(project_in(project)).cell("abacus", "poet")
    registry, indexes = run.shelf.registry, run.shelf.index_repository
    assert noop.begin("state", [run]) == noop.Begun(
        state="state", beside=Beside(tags=(), withdrawn=None)
    )
    image = push_image(registry, "toys/poet", b"image")
    operation = withdrawal_of(image, "yanked").model_copy(update={"index_repository": indexes})
    with pytest.MonkeyPatch.context() as cut:
        cut.setattr(tag_moves, "bury", fails)
        with pytest.raises(WorldError):
            carry_out(operation, run.shelf, Journal.begin(project, operation), lambda _: None)
    assert noop.begin("state", [run]) is None
    finish_or_undo(project, run.shelf, lambda _: None)
    assert noop.begin("state", [run]) is not None


def withdrawal_of(
    digest: str, event: Literal["yanked", "rolled_back"], reason: str = "wrong answers"
) -> Operation:
    stone = Tombstone(
        event=event,
        release=RELEASE,
        cell="abacus/poet",
        digest=digest,
        by="Ada",
        reason=reason,
        time="2026-11-24T12:00:00+00:00",
        replaced_by=None,
    )
    return Operation(
        kind="yank" if event == "yanked" else "rollback",
        release=RELEASE,
        registry=HOST,
        index_repository=INDEXES,
        commit=None,
        moves=(),
        burials=(Burial(repository="toys/poet", tombstone=stone),),
    )


def fails(*_: object) -> None:
    raise WorldError("the registry went away")


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
