"""Cards of images that were yanked or rolled back: what they say, and how they come to know it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import selection
from pipeline.cli import main
from pipeline.errors import WorldError
from pipeline.record import Record, RecordStore
from pipeline.release_index import Tombstone
from pipeline.results import PromoteResult
from pipeline.stages.card import CARDS, card
from pipeline.tombstones import keep_tombstone, tombstone_beside
from pipeline.world import harbor
from pipeline.world.journal import Burial
from pipeline.world.tag_moves import bury
from tests.fakes_registry import FakeRegistry, push_image
from tests.projects import committed, project_in, toy_project
from tests.record_parts import passed
from tests.records import cpu_record

TEMPLATES = committed().templates
OLD, NEW = "2026.11.24.1", "2026.11.24.2"
HOST, PUBLIC = "127.0.0.1:5000", "flagrelease/flagrelease_cpu_smollm2"


def stone(digest: str = "sha256:d", replaced_by: str | None = OLD) -> Tombstone:
    return Tombstone(
        event="yanked",
        release=NEW,
        cell="abacus/poet",
        digest=digest,
        by="Ada Example",
        reason="it answers | in riddles",
        time="2026-12-03T04:05:06+00:00",
        replaced_by=replaced_by,
    )


@pytest.mark.parametrize(
    ("replaced_by", "ends"),
    [
        (OLD, (f"Use release `{OLD}` instead.", f"请改用发布版本 `{OLD}`。")),
        (None, ("No release takes its place so far.", "目前没有可替代的发布版本。")),
    ],
)
def test_date_person_reason_and_replacement_stand_before_anything_else(
    replaced_by: str | None, ends: tuple[str, str]
) -> None:
    files = card(cpu_record(), TEMPLATES, stone(replaced_by=replaced_by))
    for name, end in zip(CARDS, ends, strict=True):
        banner = files[name].decode().partition("\n# ")[2].splitlines()[2]
        assert banner.startswith("> **")
        assert banner.endswith(end)
        for said in ("Ada Example", "2026-12-03", "it answers \\| in riddles", f"`{NEW}`"):
            assert said in banner


def test_a_withdrawal_changes_no_command_of_the_card() -> None:
    before, after = card(cpu_record(), TEMPLATES), card(cpu_record(), TEMPLATES, stone())
    for name in CARDS:
        lines = after[name].decode().splitlines()
        gone = [line for line in lines if "Ada Example" not in line]
        assert "\n".join(gone).replace("\n\n\n", "\n\n") == before[name].decode().rstrip("\n")


class Site:
    """Two releases of a cell, promoted to a registry in memory, and the commands over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = RecordStore(folder / "out")
        self.registry = FakeRegistry(HOST)
        self.digests = {name: self._promote(name) for name in (OLD, NEW)}

    def _promote(self, release: str) -> str:
        digest = push_image(self.registry, PUBLIC, release.encode())
        record = cpu_record().model_copy(
            update={"cell": "abacus/poet", "chip": "abacus", "model": "poet", "release": release}
        )
        assert record.image is not None
        image = record.image.model_copy(update={"manifest_digest": digest})
        result = PromoteResult(
            reference="r", tag=release, digest=digest, copied_bytes=0, mounted_blobs=0
        )
        changed = record.model_copy(update={"image": image})
        self.store.write(changed.with_stage("promote", passed(result)))
        return digest

    def withdraw(self, replaced_by: str | None = OLD) -> None:
        """From another machine: nothing here knows of it."""
        told = stone(self.digests[NEW], replaced_by)
        bury(self.registry, Burial(repository=PUBLIC, tombstone=told))

    def run(self, *words: str) -> tuple[int, str]:
        output = io.StringIO()
        code = main(words, Console(file=output, width=200))
        return code, output.getvalue()

    def page(self, release: str) -> str:
        return (self.store.folder(release, "abacus", "poet") / "card.en.md").read_text("utf-8")

    def hub(self) -> str:
        (path,) = (self.folder / "out/hub").glob("*/README.md")
        return path.read_text("utf-8")

    def record(self, release: str) -> Record:
        found = self.store.read(release, "abacus", "poet")
        assert found is not None
        return found


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    toy_project(tmp_path, ("registry: registry.test/toys", f"registry: {HOST}/flagrelease"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(selection, "Project", lambda root, *_, **__: project_in(root))
    made = Site(tmp_path)
    monkeypatch.setattr(harbor, "Registry", lambda _, **__: made.registry)
    return made


def test_what_another_machine_withdrew_is_on_the_card_and_the_hub_shows_the_release_before(
    site: Site,
) -> None:
    assert site.run("cards", "--publish")[0] == 0
    assert f"release `{NEW}`" in site.hub()
    site.withdraw()
    code, output = site.run("cards", "--publish")
    assert code == 0
    assert f"wrote out/{NEW}/abacus/poet/tombstone.json" in output
    assert "**Withdrawn: do not use this image.**" in site.page(NEW)
    assert f"release `{OLD}`" in site.hub()
    assert "Withdrawn" not in site.hub()
    assert site.run("cards", "--check")[0] == 0


def test_without_a_release_before_the_hub_shows_the_withdrawal(site: Site) -> None:
    (site.store.folder(OLD, "abacus", "poet") / "record.json").unlink()
    site.run("cards", "--publish")
    site.withdraw(None)
    assert site.run("cards", "--publish")[0] == 0
    assert "No release takes its place so far." in site.hub()


def test_the_hub_that_shows_the_release_before_is_left_alone_the_next_time(site: Site) -> None:
    site.run("cards", "--publish", "--release", OLD)
    site.run("cards", "--publish")
    site.withdraw()
    site.run("cards", "--publish")
    code, output = site.run("cards", "--publish")
    assert code == 0
    assert output.endswith("is the same already\n")
    assert f"release `{OLD}`" in site.hub()


def test_a_registry_that_cannot_be_asked_leaves_the_copies_that_are_here(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = site.store.folder(NEW, "abacus", "poet")
    keep_tombstone(folder, stone(site.digests[NEW]))

    def silent(*_: object) -> None:
        raise WorldError("nobody answers")

    monkeypatch.setattr(site.registry, "referring", silent)
    code, output = site.run("card", "abacus", "poet", "--release", NEW)
    assert code == 0
    assert f"{HOST} was not asked what was withdrawn, so the copies here count" in output
    assert "**Withdrawn" in site.page(NEW)


def test_a_check_and_a_mere_rewriting_ask_nobody(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.withdraw()
    monkeypatch.setattr(harbor, "Registry", lambda _, **__: pytest.fail("the registry was asked"))
    assert site.run("cards")[0] == 0
    assert site.run("cards", "--check")[0] == 0
    assert tombstone_beside(site.store.folder(NEW, "abacus", "poet")) is None
