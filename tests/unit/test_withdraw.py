"""rollback and yank over registries in memory: what tags name afterwards, and what tombstones say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from pipeline.admission import Candidate, Release
from pipeline.agreement import DisagreementError
from pipeline.errors import NoAnswerError, StageRefusedError
from pipeline.release_index import Tombstone
from pipeline.stages import verify
from pipeline.stages.promote import promote
from pipeline.stages.withdraw import Withdrawal, rollback, yank
from pipeline.world.attachments import Place
from pipeline.world.indexes import Indexes, tombstones
from pipeline.world.journal import open_journals
from pipeline.world.oci import WITHDRAWN
from pipeline.world.shelf import Shelf
from pipeline.world.tag_moves import finish_or_undo
from tests.fakes_registry import FakeRegistry, gated_record, push_image

FIRST, SECOND, THIRD = "2026.11.1", "2026.11.2", "2026.11.3"
PUBLIC = {"cpu/a": "toys/flagrelease_cpu_a", "cpu/b": "toys/flagrelease_cpu_b"}


@dataclass
class Toys:
    """Releases of two cells, each of another image."""

    registry: FakeRegistry
    folder: Path
    said: list[str] = field(default_factory=list)

    @property
    def shelf(self) -> Shelf:
        return Shelf(registry=self.registry, index_repository="toys/releases", journals=self.folder)

    def promote(self, release: str, content: str = "", *cells: str) -> dict[str, str]:
        found = {}
        candidates = []
        for cell in cells or tuple(PUBLIC):
            staging = f"toys/staging/{cell}"
            layer = f"{cell} {content or release}".encode()
            found[cell] = push_image(self.registry, staging, layer)
            candidates.append(
                Candidate(
                    record=gated_record(found[cell], cell),
                    source=self.registry,
                    source_repository=staging,
                    public=PUBLIC[cell],
                )
            )
        promote(
            Release(name=release, candidates=candidates, left_out={}),
            self.shelf,
            today=date(2026, 11, 24),
            say=self.said.append,
        )
        return found

    def rollback(self, release: str) -> tuple[Tombstone, ...]:
        return rollback(withdrawal(release), self.shelf, say=self.said.append)

    def yank(self, release: str, *cells: str) -> tuple[Tombstone, ...]:
        return yank(withdrawal(release), cells, self.shelf, say=self.said.append)

    def latest(self, cell: str = "cpu/a") -> str | None:
        return self.registry.head(PUBLIC[cell], "latest")

    def tags(self, cell: str = "cpu/a") -> tuple[str, ...]:
        return tuple(
            tag for tag in self.registry.tags(PUBLIC[cell]) if not tag.startswith("sha256-")
        )

    def stones(self, digest: str, cell: str = "cpu/a") -> list[str]:
        return [stone.sentence for stone in tombstones(self.registry, PUBLIC[cell], digest)]


def withdrawal(release: str) -> Withdrawal:
    return Withdrawal(
        release=release, by="Ada", reason="wrong answers", time="2026-11-24T12:00:00+00:00"
    )


@pytest.fixture(params=["deletes tags", "deletes manifests"])
def toys(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Toys]:
    registry = FakeRegistry(deletes_tags=request.param == "deletes tags")
    yield Toys(registry, tmp_path)
    assert open_journals(tmp_path) == ()


def test_rollback_moves_aliases_back_takes_version_tags_away_and_keeps_digests(toys: Toys) -> None:
    old, new = toys.promote(FIRST), toys.promote(SECOND)
    stones = toys.rollback(SECOND)
    assert toys.tags("cpu/a") == toys.tags("cpu/b") == (FIRST, "latest")
    assert toys.latest("cpu/a") == old["cpu/a"]
    assert toys.registry.head(PUBLIC["cpu/a"], new["cpu/a"]) == new["cpu/a"]
    told = (
        f"release {SECOND} was rolled back on 2026-11-24 by Ada: wrong answers; use release {FIRST}"
    )
    assert toys.stones(new["cpu/a"]) == [told]
    assert [(stone.cell, stone.sentence) for stone in stones] == [("cpu/a", told), ("cpu/b", told)]


def test_rollback_of_the_first_release_leaves_no_public_tag(toys: Toys) -> None:
    new = toys.promote(FIRST)
    toys.rollback(FIRST)
    assert toys.tags() == ()
    assert toys.registry.head(PUBLIC["cpu/a"], new["cpu/a"]) == new["cpu/a"]


def test_a_release_that_was_rolled_back_is_never_promoted_again(toys: Toys) -> None:
    toys.promote(FIRST)
    toys.rollback(FIRST)
    with pytest.raises(StageRefusedError, match="was rolled back on 2026-11-24 by Ada") as caught:
        toys.promote(FIRST)
    assert caught.value.hint == "release under a new name"
    toys.promote(SECOND, FIRST)  # the same image, under another name
    assert toys.tags() == (SECOND, "latest")


def test_rollback_leaves_alone_what_moved_on(toys: Toys) -> None:
    toys.promote(FIRST)
    toys.promote(SECOND)
    third = toys.promote(THIRD)
    toys.rollback(SECOND)
    assert toys.latest() == third["cpu/a"]
    assert toys.tags() == (FIRST, THIRD, "latest")
    assert any(f":latest names {third['cpu/a']} by now; left alone" in line for line in toys.said)


def test_rollback_does_not_go_back_to_what_was_yanked(toys: Toys) -> None:
    first = toys.promote(FIRST)
    toys.promote(SECOND)
    toys.promote(THIRD)
    toys.yank(SECOND, "cpu/a")
    toys.rollback(THIRD)
    assert toys.latest("cpu/a") == first["cpu/a"]


def test_rollback_a_second_time_says_so_and_changes_nothing(toys: Toys) -> None:
    toys.promote(FIRST)
    stones = toys.rollback(FIRST)
    toys.registry.changes.clear()
    assert toys.rollback(FIRST) == stones  # for cards, where the first run was killed before those
    assert toys.registry.changes == []
    assert "was rolled back" in toys.said[-1]


def test_another_tag_of_the_same_digest_outlives_a_rollback(toys: Toys) -> None:
    old = toys.promote(FIRST, "same")
    toys.promote(SECOND, "same")
    toys.rollback(SECOND)
    assert toys.tags() == (FIRST, "latest")
    assert toys.latest() == old["cpu/a"]


def test_yank_keeps_the_version_tag_and_moves_the_alias_back(toys: Toys) -> None:
    old, new = toys.promote(FIRST), toys.promote(SECOND)
    toys.yank(SECOND, "cpu/a")
    assert toys.tags("cpu/a") == (FIRST, SECOND, "latest")
    assert toys.latest("cpu/a") == old["cpu/a"]
    assert toys.latest("cpu/b") == new["cpu/b"]
    told = f"release {SECOND} was yanked on 2026-11-24 by Ada: wrong answers; use release {FIRST}"
    assert toys.stones(new["cpu/a"]) == [told]
    assert toys.stones(new["cpu/b"], "cpu/b") == []


def test_yank_of_an_older_release_leaves_the_alias(toys: Toys) -> None:
    old, new = toys.promote(FIRST), toys.promote(SECOND)
    (stone,) = toys.yank(FIRST, "cpu/a")
    assert toys.latest("cpu/a") == new["cpu/a"]
    assert (stone.digest, stone.replaced_by) == (old["cpu/a"], SECOND)


def test_yank_passes_over_releases_that_were_withdrawn(toys: Toys) -> None:
    first = toys.promote(FIRST)
    toys.promote(SECOND)
    toys.promote(THIRD)
    toys.yank(SECOND, "cpu/a")
    toys.yank(THIRD, "cpu/a")
    assert toys.latest("cpu/a") == first["cpu/a"]


def test_yank_of_the_only_release_takes_the_alias_away(toys: Toys) -> None:
    only = toys.promote(FIRST)
    (stone,) = toys.yank(FIRST, "cpu/a")
    assert toys.tags("cpu/a") == (FIRST,)
    assert toys.registry.head(PUBLIC["cpu/a"], FIRST) == only["cpu/a"]
    assert stone.replaced_by is None


def test_yank_of_an_image_of_two_releases_passes_over_both(toys: Toys) -> None:
    first = toys.promote(FIRST)
    toys.promote(SECOND, "same")
    toys.promote(THIRD, "same")
    (stone,) = toys.yank(THIRD, "cpu/a")
    assert toys.latest() == first["cpu/a"]
    assert stone.replaced_by == FIRST


def test_yank_twice_leaves_one_tombstone(toys: Toys) -> None:
    only = toys.promote(FIRST)
    stones = toys.yank(FIRST, "cpu/a")
    assert toys.yank(FIRST, "cpu/a") == stones
    assert len(toys.stones(only["cpu/a"])) == 1


def test_a_yanked_image_does_not_go_out_again_under_another_name(toys: Toys) -> None:
    toys.promote(FIRST, "same")
    toys.yank(FIRST, "cpu/a")
    with pytest.raises(StageRefusedError, match="this very image was withdrawn") as caught:
        toys.promote(SECOND, "same", "cpu/a")
    assert f"release {FIRST} was yanked" in caught.value.details


def test_promoting_a_yanked_release_again_does_not_bring_its_alias_back(toys: Toys) -> None:
    old, _ = toys.promote(FIRST), toys.promote(SECOND)
    toys.yank(SECOND, "cpu/a")
    toys.promote(SECOND, "", "cpu/b")
    assert toys.latest("cpu/a") == old["cpu/a"]


def test_what_was_never_promoted_is_not_withdrawn(toys: Toys) -> None:
    toys.promote(FIRST, "", "cpu/a")
    with pytest.raises(StageRefusedError, match="has no index") as caught:
        toys.rollback(SECOND)
    assert caught.value.hint == f"the newest releases are {FIRST}"
    with pytest.raises(StageRefusedError, match="it does not have cpu/b"):
        toys.yank(FIRST, "cpu/a", "cpu/b")
    assert toys.tags("cpu/a") == (FIRST, "latest")


class Killed(BaseException):
    pass


class KilledAt(FakeRegistry):
    """Dies after its n-th change."""

    left = -1

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        digest = super().put_manifest(repository, reference, body, media_type)
        self._count()
        return digest

    def delete(self, repository: str, reference: str) -> bool:
        is_deleted = super().delete(repository, reference)
        if is_deleted:
            self._count()
        return is_deleted

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("deletes_tags", [True, False])
def test_a_rollback_killed_at_any_change_is_finished_and_loses_no_digest(
    tmp_path: Path, deletes_tags: bool
) -> None:
    kills = 0
    for change in range(1, 40):
        registry = KilledAt(deletes_tags=deletes_tags)
        toys = Toys(registry, tmp_path / f"{change}")
        old, new = toys.promote(FIRST), toys.promote(SECOND)
        registry.left = change
        try:
            toys.rollback(SECOND)
        except Killed:
            kills += 1
            registry.left = -1
            finish_or_undo(toys.folder, toys.shelf, toys.said.append)
        for cell in PUBLIC:
            assert toys.tags(cell) == (FIRST, "latest")
            assert toys.latest(cell) == old[cell]
            assert registry.head(PUBLIC[cell], new[cell]) == new[cell]
            assert len(toys.stones(new[cell], cell)) == 1
    assert kills >= 10


class DeletesNothing(FakeRegistry):
    def delete(self, repository: str, reference: str) -> bool:
        return False


def test_a_registry_that_deletes_nothing_keeps_the_version_tag_and_says_so(tmp_path: Path) -> None:
    toys = Toys(DeletesNothing(), tmp_path)
    old, new = toys.promote(FIRST), toys.promote(SECOND)
    toys.rollback(SECOND)
    assert toys.latest() == old["cpu/a"]
    assert toys.registry.head(PUBLIC["cpu/a"], SECOND) == new["cpu/a"]
    assert f"{PUBLIC['cpu/a']}:{SECOND} stays: this registry does not delete it" in toys.said


def test_a_registry_that_stops_answering_is_gone_on_with_later(tmp_path: Path) -> None:
    class Deaf(FakeRegistry):
        is_deaf = False

        def put_manifest(
            self, repository: str, reference: str, body: bytes, media_type: str
        ) -> str:
            if self.is_deaf and reference == "latest":
                raise NoAnswerError("could not ask", where=self.host)
            return super().put_manifest(repository, reference, body, media_type)

    registry = Deaf(deletes_tags=True)
    toys = Toys(registry, tmp_path)
    old, _ = toys.promote(FIRST), toys.promote(SECOND)
    registry.is_deaf = True
    with pytest.raises(NoAnswerError):
        toys.yank(SECOND, "cpu/a")
    registry.is_deaf = False
    toys.promote(SECOND, "", "cpu/b")
    assert toys.latest("cpu/a") == old["cpu/a"]


def verified(toys: Toys, release: str) -> str:
    """What `verify` sees of the release index, for the image under a version tag."""
    manifest = toys.registry.manifest(PUBLIC["cpu/a"], release)
    assert manifest is not None
    asked = verify.Asked(
        place=Place(registry=toys.registry, repository=PUBLIC["cpu/a"], image=manifest),
        tag=release,
        key=None,
        labels=dict,
        made=lambda _record, _stone: {},
        cards=(),
    )
    record = gated_record(manifest.digest, "cpu/a").model_copy(update={"release": release})
    return verify._index(asked, (record, b""))[0]


def test_verify_passes_a_release_after_the_rollback_of_another_of_the_same_image(
    toys: Toys,
) -> None:
    toys.promote(FIRST, "same")
    toys.promote(SECOND, "same")
    toys.rollback(FIRST)
    assert verified(toys, SECOND).startswith("none here: the image is released as")
    toys.yank(SECOND, "cpu/a")
    with pytest.raises(DisagreementError, match=f"release {SECOND} was yanked") as caught:
        verified(toys, SECOND)
    assert FIRST not in str(caught.value)


class CutBefore(FakeRegistry):
    """Dies before a public tag is set."""

    tag = ""

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        if self.tag and repository in PUBLIC.values() and reference == self.tag:
            raise Killed
        return super().put_manifest(repository, reference, body, media_type)


@contextmanager
def cut_before(tag: str, registry: CutBefore) -> Iterator[None]:
    registry.tag = tag
    with pytest.raises(Killed):
        yield
    registry.tag = ""


@pytest.fixture
def two(tmp_path: Path) -> tuple[Toys, Toys, CutBefore]:
    """Two checkouts at one registry, as on two hosts."""
    registry = CutBefore(deletes_tags=True)
    return Toys(registry, tmp_path / "one"), Toys(registry, tmp_path / "other"), registry


Two = tuple[Toys, Toys, CutBefore]


def test_an_old_journal_does_not_bring_a_rolled_back_release_back(two: Two) -> None:
    one, other, registry = two
    one.promote(FIRST)
    with cut_before(SECOND, registry):
        one.promote(SECOND)
    other.rollback(SECOND)
    one.yank(FIRST, "cpu/b")  # anything that begins with what was cut off
    assert one.tags("cpu/a") == (FIRST, "latest")
    assert one.latest() == one.registry.head(PUBLIC["cpu/a"], FIRST)
    told = f"undone: a promote of release {SECOND} was cut off, and the release was withdrawn since"
    assert told in one.said
    assert open_journals(one.folder) == ()


def test_an_old_journal_does_not_bring_the_alias_to_a_yanked_image(two: Two) -> None:
    one, other, registry = two
    one.promote(FIRST)
    with cut_before("latest", registry):
        one.promote(SECOND)
    other.yank(SECOND, *PUBLIC)
    one.promote(FIRST)
    assert one.tags() == (FIRST, SECOND, "latest")
    assert one.latest() == one.registry.head(PUBLIC["cpu/a"], FIRST)
    assert open_journals(one.folder) == ()


def test_rollback_does_not_go_back_to_a_release_that_was_rolled_back(toys: Toys) -> None:
    first = toys.promote(FIRST)
    toys.promote(SECOND)
    toys.promote(THIRD)
    toys.rollback(SECOND)
    toys.rollback(THIRD)
    assert toys.latest() == first["cpu/a"]


def test_rollback_goes_back_to_an_image_that_another_release_still_names(toys: Toys) -> None:
    toys.promote(FIRST, "same")
    second = toys.promote(SECOND, "same")
    toys.promote(THIRD)
    toys.rollback(FIRST)
    toys.rollback(THIRD)
    assert toys.latest() == second["cpu/a"]


@pytest.mark.parametrize("begun", ["rollback", "yank"])
@pytest.mark.parametrize("meanwhile", ["rollback", "yank"])
def test_what_was_cut_off_does_not_set_the_alias_to_what_was_withdrawn_since(
    two: Two, begun: str, meanwhile: str
) -> None:
    one, other, registry = two
    for release in (FIRST, SECOND, THIRD):
        one.promote(release)
    with cut_before("latest", registry):
        one.rollback(THIRD) if begun == "rollback" else one.yank(THIRD, *PUBLIC)
    other.rollback(SECOND) if meanwhile == "rollback" else other.yank(SECOND, *PUBLIC)
    finish_or_undo(one.folder, one.shelf, one.said.append)
    for cell in PUBLIC:
        assert one.latest(cell) == one.registry.head(PUBLIC[cell], FIRST)
    assert any("which was withdrawn" in line for line in one.said)
    assert open_journals(one.folder) == ()


def test_what_was_cut_off_takes_the_alias_away_where_nothing_stands(two: Two) -> None:
    one, other, registry = two
    for release in (FIRST, SECOND, THIRD):
        one.promote(release)
    with cut_before("latest", registry):
        one.rollback(THIRD)
    other.yank(SECOND, *PUBLIC)
    other.yank(FIRST, *PUBLIC)
    finish_or_undo(one.folder, one.shelf, one.said.append)
    assert one.latest() is None
    assert one.tags() == (FIRST, SECOND)


def test_rollback_leaves_the_alias_at_an_image_that_a_later_release_names_too(toys: Toys) -> None:
    toys.promote(FIRST)
    toys.promote(SECOND, "same")
    third = toys.promote(THIRD, "same")
    toys.rollback(SECOND)
    assert toys.latest() == third["cpu/a"]
    assert toys.tags() == (FIRST, THIRD, "latest")


def test_a_rollback_whose_journal_is_lost_is_done_by_the_same_command_elsewhere(two: Two) -> None:
    one, other, registry = two
    first, second = one.promote(FIRST), one.promote(SECOND)
    with cut_before("latest", registry):
        one.rollback(SECOND)
    for journal in open_journals(one.folder):
        journal.path.unlink()
    other.rollback(SECOND)
    for cell in PUBLIC:
        assert other.tags(cell) == (FIRST, "latest")
        assert other.latest(cell) == first[cell]
        assert len(other.stones(second[cell], cell)) == 1


def test_a_yank_whose_journal_is_lost_is_done_by_the_same_command_elsewhere(two: Two) -> None:
    one, other, registry = two
    first, second = one.promote(FIRST), one.promote(SECOND)
    with cut_before("latest", registry):
        one.yank(SECOND, *PUBLIC)
    for journal in open_journals(one.folder):
        journal.path.unlink()
    other.yank(SECOND, *PUBLIC)
    for cell in PUBLIC:
        assert other.latest(cell) == first[cell]
        assert len(other.stones(second[cell], cell)) == 1


@pytest.mark.parametrize("event", ["yank", "rollback"])
def test_a_withdrawal_whose_journal_is_lost_is_told_as_done_by_the_same_command_elsewhere(
    two: Two, event: str
) -> None:
    """While one is told as not done, no release is remembered as having nothing to do."""
    one, other, registry = two
    one.promote(FIRST)
    one.promote(SECOND)

    def withdraw(toys: Toys) -> None:
        toys.yank(SECOND, *PUBLIC) if event == "yank" else toys.rollback(SECOND)

    with cut_before("latest", registry):
        withdraw(one)
    for journal in open_journals(one.folder):
        journal.path.unlink()
    told = registry.content["toys/releases"].tags
    begun = told[WITHDRAWN]
    assert one.shelf.is_withdrawing(begun)
    withdraw(other)
    assert not one.shelf.is_withdrawing(told[WITHDRAWN])
    told[WITHDRAWN] = begun  # as after a kill when all but this was done
    withdraw(other)
    assert not one.shelf.is_withdrawing(told[WITHDRAWN])


def as_before_2026_11_25(toys: Toys) -> None:
    """Journals then did not name their release index."""
    for journal in open_journals(toys.folder):
        begun, *more = journal.path.read_text().splitlines(keepends=True)
        content = json.loads(begun)
        del content["operation"]["index_repository"]
        journal.path.write_text("".join([json.dumps(content) + "\n", *more]))


@pytest.mark.parametrize("begun", ["promote", "rollback", "yank"])
def test_a_journal_of_an_older_version_is_finished_by_its_own_index_alone(
    two: Two, begun: str
) -> None:
    one, _, registry = two
    first, second = one.promote(FIRST), one.promote(SECOND)
    with cut_before("latest", registry):
        if begun == "promote":
            one.promote(THIRD)
        elif begun == "rollback":
            one.rollback(SECOND)
        else:
            one.yank(SECOND, *PUBLIC)
    as_before_2026_11_25(one)
    (journal,) = open_journals(one.folder)
    elsewhere = Indexes(registry=registry, index_repository="other/releases")
    finish_or_undo(one.folder, elsewhere, one.said.append)
    assert one.latest() == second["cpu/a"]
    assert journal.path.exists()
    finish_or_undo(one.folder, one.shelf, one.said.append)
    third = one.registry.head(PUBLIC["cpu/a"], THIRD)
    assert one.latest() == (third if begun == "promote" else first["cpu/a"])
    assert open_journals(one.folder) == ()


def test_an_older_journal_that_no_index_knows_is_left_and_says_what_to_look_at(two: Two) -> None:
    one, _, registry = two
    one.promote(FIRST)
    one.promote(SECOND)
    with cut_before("latest", registry):
        one.yank(SECOND, *PUBLIC)
    as_before_2026_11_25(one)
    (journal,) = open_journals(one.folder)
    elsewhere = Indexes(registry=registry, index_repository="other/releases")
    finish_or_undo(one.folder, elsewhere, one.said.append)
    assert one.said[-1] == (
        f"left: a yank of release {SECOND}, cut off in a version that did not write whose it is; other/releases does"
        " not have its images. If no target has, see that no `latest` names one of them, then remove"
        f" {journal.path}"
    )
    assert open_journals(one.folder) != ()
