"""What other hosts do between the first question of a promotion and its commit; no lock reaches that far."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import pytest

from pipeline.admission import Candidate, Release
from pipeline.errors import StageRefusedError
from pipeline.stages.promote import promote
from pipeline.stages.withdraw import Withdrawal, rollback, yank
from pipeline.world import shelf
from pipeline.world.journal import open_journals
from pipeline.world.shelf import Shelf
from tests.fakes_registry import FakeRegistry, gated_record, push_image

FIRST, SECOND, THIRD = "2026.11.1", "2026.11.2", "2026.11.3"
TODAY = date(2026, 11, 24)


class Meanwhile(FakeRegistry):
    """Somebody else acts when the first manifest is copied."""

    act: Callable[[], None] | None = None

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        if self.act and "flagrelease" in repository:
            act, self.act = self.act, None
            act()
        return super().put_manifest(repository, reference, body, media_type)


def candidate(registry: FakeRegistry, cell: str, content: str = "") -> Candidate:
    staging = f"toys/staging/{cell}"
    digest = push_image(registry, staging, f"{cell} {content}".encode())
    return Candidate(
        record=gated_record(digest, cell),
        source=registry,
        source_repository=staging,
        public=f"toys/flagrelease_{cell.replace('/', '_')}",
    )


class Host:
    """A checkout of its own, so journals of its own."""

    def __init__(self, registry: FakeRegistry, folder: Path) -> None:
        self.registry = registry
        self.shelf = Shelf(registry=registry, index_repository="toys/releases", journals=folder)
        self.said = list[str]()

    def promote(self, release: str, *candidates: Candidate) -> None:
        asked = Release(name=release, candidates=candidates, left_out={})
        promote(asked, self.shelf, today=TODAY, say=self.said.append)

    def withdrawal(self, release: str) -> Withdrawal:
        return Withdrawal(
            release=release, by="Ada", reason="wrong", time="2026-11-24T12:00:00+00:00"
        )

    def latest(self, cell: str) -> str | None:
        return self.registry.head(f"toys/flagrelease_{cell.replace('/', '_')}", "latest")

    def indexed(self, release: str) -> list[str]:
        index = self.shelf.index(release)
        return [cell.cell for cell in index.cells] if index else []


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Host, Meanwhile]:
    registry = Meanwhile(deletes_tags=True)
    # The lock of this host would make one wait for the other.
    monkeypatch.setattr(shelf, "host_lock", lambda *_: nullcontext())
    return Host(registry, tmp_path / "one"), Host(registry, tmp_path / "other"), registry


def test_cells_that_another_host_promotes_under_the_same_name_stay_in_the_index(
    hosts: tuple[Host, Host, Meanwhile],
) -> None:
    one, other, registry = hosts
    mine, theirs = candidate(registry, "cpu/a"), candidate(registry, "cpu/b")
    registry.act = lambda: other.promote(FIRST, theirs)
    with pytest.raises(StageRefusedError, match="index of this release was changed"):
        one.promote(FIRST, mine)
    assert one.indexed(FIRST) == ["cpu/b"]
    assert open_journals(one.shelf.journals) == ()
    assert one.latest("cpu/a") is None
    one.promote(FIRST, mine)
    assert one.indexed(FIRST) == ["cpu/a", "cpu/b"]
    assert None not in (one.latest("cpu/a"), one.latest("cpu/b"))


def test_a_release_that_is_rolled_back_while_cells_are_added_to_it_stays_rolled_back(
    hosts: tuple[Host, Host, Meanwhile],
) -> None:
    one, other, registry = hosts
    other.promote(FIRST, candidate(registry, "cpu/b"))
    mine = candidate(registry, "cpu/a")

    def roll_back() -> None:
        rollback(other.withdrawal(FIRST), other.shelf, say=other.said.append)

    registry.act = roll_back
    with pytest.raises(StageRefusedError, match="was rolled back"):
        one.promote(FIRST, mine)
    assert one.indexed(FIRST) == ["cpu/b"]
    assert one.latest("cpu/a") is None
    with pytest.raises(StageRefusedError, match="was rolled back"):
        one.promote(FIRST, mine)


def test_cells_that_join_a_release_while_it_is_rolled_back_are_told_and_taken_back_by_the_next_run(
    hosts: tuple[Host, Host, Meanwhile],
) -> None:
    """The rollback had read the index, and was not yet to be seen."""
    one, other, registry = hosts
    one.promote(FIRST, candidate(registry, "cpu/a"))
    theirs = candidate(registry, "cpu/b")

    class BeforeItIsTold(Meanwhile):
        def put_manifest(
            self, repository: str, reference: str, body: bytes, media_type: str
        ) -> str:
            if reference == "withdrawn":
                registry.__class__ = Meanwhile
                other.promote(FIRST, theirs)
            return Meanwhile.put_manifest(self, repository, reference, body, media_type)

    registry.__class__ = BeforeItIsTold
    with pytest.raises(StageRefusedError, match="index of this release was changed"):
        rollback(one.withdrawal(FIRST), one.shelf, say=one.said.append)
    rollback(one.withdrawal(FIRST), one.shelf, say=one.said.append)
    assert one.latest("cpu/a") is one.latest("cpu/b") is None
    with pytest.raises(StageRefusedError, match="was rolled back"):
        other.promote(FIRST, candidate(registry, "cpu/c"))


def test_an_image_that_is_yanked_while_it_is_promoted_anew_does_not_go_out(
    hosts: tuple[Host, Host, Meanwhile],
) -> None:
    one, other, registry = hosts
    other.promote(FIRST, candidate(registry, "cpu/a"))
    again, with_it = candidate(registry, "cpu/a"), candidate(registry, "cpu/b")

    def yanks() -> None:
        yank(other.withdrawal(FIRST), ["cpu/a"], other.shelf, say=other.said.append)

    registry.act = yanks
    with pytest.raises(StageRefusedError, match="this very image was withdrawn"):
        one.promote(SECOND, again, with_it)
    assert one.indexed(SECOND) == []
    assert one.latest("cpu/b") is None


def test_cells_whose_index_another_host_stored_over_are_told_and_join_by_the_next_run(
    hosts: tuple[Host, Host, Meanwhile],
) -> None:
    """Both had asked before either stored: the first is not public any more, though its tags are there."""
    one, other, registry = hosts
    mine, theirs = candidate(registry, "cpu/a"), candidate(registry, "cpu/b")
    other.promote(FIRST, theirs)
    their_index = str(registry.head("toys/releases", f"rel-{FIRST}"))
    registry.content["toys/releases"].tags.clear()

    class Over(Meanwhile):
        def put_manifest(
            self, repository: str, reference: str, body: bytes, media_type: str
        ) -> str:
            digest = super().put_manifest(repository, reference, body, media_type)
            if reference == f"rel-{FIRST}":
                self.content[repository].tags[reference] = their_index
            return digest

    registry.__class__ = Over
    with pytest.raises(StageRefusedError, match="index of this release was changed"):
        one.promote(FIRST, mine)
    assert open_journals(one.shelf.journals) == ()
    registry.__class__ = Meanwhile
    one.promote(FIRST, mine)
    assert one.indexed(FIRST) == ["cpu/a", "cpu/b"]
    assert one.latest("cpu/a") == registry.head("toys/flagrelease_cpu_a", FIRST)


@pytest.mark.parametrize(("mine", "theirs"), [(THIRD, SECOND), (SECOND, THIRD)])
def test_of_two_releases_at_once_the_alias_ends_at_the_newer_one(
    hosts: tuple[Host, Host, Meanwhile], mine: str, theirs: str
) -> None:
    one, other, registry = hosts
    one.promote(FIRST, candidate(registry, "cpu/a", FIRST))
    staged = {name: candidate(registry, "cpu/a", name) for name in (mine, theirs)}
    registry.act = lambda: other.promote(theirs, staged[theirs])
    one.promote(mine, staged[mine])
    newer = registry.head("toys/flagrelease_cpu_a", THIRD)
    assert newer is not None
    assert one.latest("cpu/a") == newer


@pytest.mark.parametrize("takes_back", ["yank", "rollback"])
def test_a_cell_that_joins_an_older_release_later_leaves_the_alias_at_the_newer_one(
    hosts: tuple[Host, Host, Meanwhile], takes_back: str
) -> None:
    one, _, registry = hosts
    one.promote(FIRST, candidate(registry, "cpu/a", FIRST))
    third = candidate(registry, "cpu/a", THIRD)
    one.promote(THIRD, third)
    one.promote(SECOND, candidate(registry, "cpu/a", SECOND), candidate(registry, "cpu/b"))
    assert one.latest("cpu/a") == registry.head("toys/flagrelease_cpu_a", THIRD)
    assert one.latest("cpu/b") == registry.head("toys/flagrelease_cpu_b", SECOND)
    if takes_back == "yank":
        yank(one.withdrawal(THIRD), ["cpu/a"], one.shelf, say=one.said.append)
    else:
        rollback(one.withdrawal(THIRD), one.shelf, say=one.said.append)
    assert one.latest("cpu/a") == registry.head("toys/flagrelease_cpu_a", SECOND)


def test_an_alias_that_a_yank_moved_back_meanwhile_goes_to_the_new_release(
    hosts: tuple[Host, Host, Meanwhile],
) -> None:
    one, other, registry = hosts
    for name in (FIRST, SECOND):
        one.promote(name, candidate(registry, "cpu/a", name))
    third = candidate(registry, "cpu/a", THIRD)

    def yanks() -> None:
        yank(other.withdrawal(SECOND), ["cpu/a"], other.shelf, say=other.said.append)

    registry.act = yanks
    one.promote(THIRD, third)
    assert one.latest("cpu/a") == registry.head("toys/flagrelease_cpu_a", THIRD)


def test_an_alias_that_somebody_set_by_hand_meanwhile_is_left_alone(
    hosts: tuple[Host, Host, Meanwhile],
) -> None:
    one, _, registry = hosts
    one.promote(FIRST, candidate(registry, "cpu/a", FIRST))
    second, theirs = candidate(registry, "cpu/a", SECOND), list[str]()

    def pushes() -> None:
        theirs.append(push_image(registry, "toys/flagrelease_cpu_a", b"theirs", tag="latest"))

    registry.act = pushes
    one.promote(SECOND, second)
    assert one.latest("cpu/a") == theirs[0]
    assert any("left alone" in line for line in one.said)
