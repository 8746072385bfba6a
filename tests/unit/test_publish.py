"""publish into folders."""

from __future__ import annotations

from pathlib import Path

import pytest

import pipeline.world.hub_folder
from pipeline.canonical import sha256_bytes
from pipeline.errors import StageRefusedError, UsageError, WorldError
from pipeline.record import ImageIdentity, Record, Stages, Status
from pipeline.results import CardResult, FileHash, PromoteResult, Publication
from pipeline.stages.publish import publish
from pipeline.world.hub import HubFile, Terms
from pipeline.world.hub import publish as to_hub
from pipeline.world.hub_folder import FolderHub
from tests.fakes_registry import bare_record, stage
from tests.records import cpu_about

CARDS = {
    "card.en.md": b"# Step3\n",
    "card.zh.md": "# 阶跃\n".encode(),
    "differences.svg": b"<svg/>",
}
README = {
    "README.md": b"# Step3\n",
    "README_zh.md": "# 阶跃\n".encode(),
    "differences.svg": b"<svg/>",
}
NAME = "flagrelease_nvidia_step3"


TERMS = Terms(is_private=False, license="MIT")


def put(hub: FolderHub, name: str, files: dict[str, bytes]) -> Publication:
    given = {path: HubFile.of(data) for path, data in files.items()}
    return to_hub(hub, name, given, TERMS, message="m")


def hashes(files: dict[str, bytes]) -> tuple[FileHash, ...]:
    return tuple(
        FileHash(path=path, sha256=sha256_bytes(data), size_bytes=len(data))
        for path, data in files.items()
    )


def record_of(
    *, promoted: str = "sha256:a", promote_status: Status = "passed", card: Status = "passed"
) -> Record:
    result = PromoteResult(
        reference=f"registry.test/x@{promoted}",
        tag="t",
        digest=promoted,
        copied_bytes=0,
        mounted_blobs=1,
    )
    return bare_record(
        "nvidia/step3",
        about=cpu_about(),
        image=ImageIdentity(
            config_digest="sha256:c", manifest_digest="sha256:a", base="b", published=True
        ),
        stages=Stages(
            promote=stage(promote_status, result),
            card=stage(card, CardResult(files=hashes(CARDS))),
        ),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_publish_puts_the_english_card_where_a_hub_shows_it(tmp_path: Path) -> None:
    first, second = FolderHub(tmp_path / "one"), FolderHub(tmp_path / "two")
    result = publish(record_of(), CARDS, (first, second), NAME)
    assert contents(tmp_path / "one" / NAME) == README
    assert contents(tmp_path / "two" / NAME) == README
    assert result.publications == tuple(
        Publication(
            hub=f"folder:{hub.root}",
            location=str(hub.root / NAME),
            changed=True,
            files=hashes(README),
        )
        for hub in (first, second)
    )


def test_publishing_the_same_cards_again_changes_nothing(tmp_path: Path) -> None:
    hub = FolderHub(tmp_path)
    publish(record_of(), CARDS, [hub], NAME)
    before = (tmp_path / NAME / "README.md").stat().st_mtime_ns
    (again,) = publish(record_of(), CARDS, [hub], NAME).publications
    assert not again.changed
    assert again.files == hashes(README)
    assert (tmp_path / NAME / "README.md").stat().st_mtime_ns == before


def test_stale_cards_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    folder.mkdir()
    for name in ("card.en.md", "README_fr.md", "config.json"):
        (folder / name).write_bytes(b"old")
    assert put(FolderHub(tmp_path), NAME, README).changed
    assert contents(folder) == {**README, "config.json": b"old"}


def test_a_hub_that_gives_back_other_bytes_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_the_end(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:-1])

    monkeypatch.setattr(pipeline.world.hub_folder, "write_whole", lose_the_end)
    with pytest.raises(WorldError, match="reading a published card back") as caught:
        put(FolderHub(tmp_path), NAME, README)
    assert caught.value.where == str(tmp_path / NAME / "README.md")


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WorldError, match="cannot be written"):
        put(FolderHub(tmp_path / "file"), NAME, README)


@pytest.mark.parametrize("name", ["../out", "/etc", "", "a/../../b"])
def test_a_name_outside_the_hub_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no name below a hub"):
        put(FolderHub(tmp_path / "hub"), name, README)


def test_a_file_name_outside_the_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no name below a hub"):
        put(FolderHub(tmp_path), NAME, {"../README.md": b""})


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (record_of(promote_status="failed"), "promote: failed"),
        (
            record_of(promoted="sha256:b"),
            "promote: passed for sha256:b, the image is sha256:a",
        ),
        (record_of(card="failed"), "card: failed"),
    ],
)
def test_publish_refuses_what_was_not_promoted_or_has_no_card(
    tmp_path: Path, record: Record, reason: str
) -> None:
    with pytest.raises(StageRefusedError) as caught:
        publish(record, CARDS, [FolderHub(tmp_path)], NAME)
    assert caught.value.details == reason
    assert list(tmp_path.iterdir()) == []


def test_publish_refuses_cards_that_the_record_does_not_know(tmp_path: Path) -> None:
    edited = {**CARDS, "card.en.md": b"# Step3, better\n", "card.fr.md": b"# Step3\n"}
    with pytest.raises(StageRefusedError) as caught:
        publish(record_of(), edited, [FolderHub(tmp_path)], NAME)
    assert caught.value.details == (
        f"card.en.md: the record has sha256 {sha256_bytes(CARDS['card.en.md'])},"
        f" the card given {sha256_bytes(edited['card.en.md'])}\n"
        "card.fr.md: no hub has a place for it"
    )
    assert list(tmp_path.iterdir()) == []


def test_publish_refuses_when_a_card_is_not_given(tmp_path: Path) -> None:
    english = {"card.en.md": CARDS["card.en.md"]}
    with pytest.raises(StageRefusedError, match="the card given none"):
        publish(record_of(), english, [FolderHub(tmp_path)], NAME)


def test_publish_refuses_a_target_without_hubs() -> None:
    with pytest.raises(StageRefusedError, match="it names no hub"):
        publish(record_of(), CARDS, [], NAME)


def test_publish_refuses_a_record_in_which_nothing_ran(tmp_path: Path) -> None:
    empty = bare_record("nvidia/step3")
    with pytest.raises(StageRefusedError) as caught:
        publish(empty, CARDS, [FolderHub(tmp_path)], NAME)
    assert caught.value.details == "promote: not_run\ncard: not_run"
