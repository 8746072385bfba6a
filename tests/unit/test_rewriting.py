"""Cards written anew from records: which ones, what is shown, and what goes to the hubs."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline import selection
from pipeline.canonical import sha256_bytes
from pipeline.cards.blocks import blocks_sha256
from pipeline.cli import main
from pipeline.keys import key_of
from pipeline.parts import parts_of
from pipeline.project import Project
from pipeline.record import Record, RecordStore, StageName
from pipeline.rehearsal import RehearsedBlock, RehearseResult
from pipeline.results import PromoteResult
from pipeline.stages.card import guide_blocks
from pipeline.waiver import Waiver
from pipeline.world import hub_folder
from tests.projects import one_cell, own_templates, project_in, toy_project
from tests.record_parts import passed
from tests.records import cpu_record, without

ROOT = Path(__file__).parents[2]
FILES = ("card.en.md", "card.zh.md", "differences.svg")
IMPORTED = ROOT / "records/imported/nvidia/step3/imported.yaml"
PUBLIC = (
    "targets:\n",
    "targets:\n  world: {registry: public.test/toys, hubs: [{folder: out/world}]}\n",
)


class Cards:
    """`python -m pipeline cards …` in a folder with the toy matrix."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.out = RecordStore(folder / "out")
        self.committed = RecordStore(folder / "records")
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        output = io.StringIO()
        self._capsys.readouterr()
        code = main(words, Console(file=output, width=200))
        return code, output.getvalue(), self._capsys.readouterr().err

    def add(self, cell: str, release: str, *, committed: bool = False, **changes: Any) -> Path:
        record = record_of(cell, release).model_copy(update=changes)
        return (self.committed if committed else self.out).write(record).parent

    def correct(self, old: str = "## Performance", new: str = "## Speed") -> None:
        path = self.folder / "templates/card.en.md.j2"
        path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


def record_of(cell: str, release: str) -> Record:
    chip, _, model = cell.partition("/")
    return cpu_record().model_copy(
        update={"cell": cell, "chip": chip, "model": model, "release": release}
    )


def promoted(record: Record) -> Record:
    digest = record.image.manifest_digest if record.image else ""
    result = PromoteResult(
        reference="r", tag="t", digest=str(digest), copied_bytes=0, mounted_blobs=1
    )
    return record.with_stage("promote", passed(result))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Cards:
    toy_project(tmp_path, PUBLIC)
    own_templates(tmp_path)
    monkeypatch.chdir(tmp_path)
    # As the command makes it, with templates that were compiled once for all tests.
    monkeypatch.setattr(selection, "Project", lambda root, *_, **__: project_in(root))
    return Cards(tmp_path, capsys)


# Which cards


def test_a_card_is_written_beside_its_record_without_engine_or_network(cards: Cards) -> None:
    folder = cards.add("abacus/poet", "2026.11.24.1")
    assert cards.run("card", "abacus", "poet")[0] == 0
    assert names(folder) == {"record.json", *FILES}
    assert "`abacus/poet`" in (folder / "card.en.md").read_text("utf-8")


def test_the_newest_release_counts_in_each_of_the_two_places(cards: Cards) -> None:
    folders = [
        cards.add("abacus/poet", release, committed=committed)
        for committed in (False, True)
        for release in ("2026.11.24.9", "2026.11.24.10")
    ]
    assert cards.run("cards")[1].endswith("cards: 2, changed: 2\n")
    assert [names(folder) > {"record.json"} for folder in folders] == [False, True, False, True]


def test_a_release_that_was_refused_gives_way_to_the_one_before(cards: Cards) -> None:
    refused = without(record_of("abacus/poet", "2026.11.24.2"), "accuracy")
    older = cards.add("abacus/poet", "2026.11.24.1")
    newer = cards.add("abacus/poet", "2026.11.24.2", stages=refused.stages)
    assert cards.run("cards")[0] == 0
    assert (names(older) > {"record.json"}, names(newer)) == (True, {"record.json"})


def test_a_release_can_be_named(cards: Cards) -> None:
    older = cards.add("abacus/poet", "2026.11.24.1")
    newer = cards.add("abacus/poet", "2026.11.24.2")
    assert cards.run("cards", "--release", "2026.11.24.1")[0] == 0
    assert (names(older) > {"record.json"}, names(newer)) == (True, {"record.json"})


def test_cells_without_any_record_say_so_and_why(cards: Cards) -> None:
    refused = without(record_of("loom/poet", "2026.11.24.2"), "accuracy")
    cards.add("loom/poet", "2026.11.24.2", stages=refused.stages)
    assert cards.run("card", "loom", "poet") == (
        1,
        "",
        "error: no record of loom/poet can have a card\n"
        "loom/poet 2026.11.24.2: accuracy: not_run\n"
        "hint: nox -s release measures a cell, and nox -s card with --release fetches the record of a public one\n",
    )


def test_an_imported_record_counts_until_one_is_measured(cards: Cards) -> None:
    folder = cards.folder / "records/imported/abacus/poet"
    folder.mkdir(parents=True)
    (folder / "imported.yaml").write_bytes(IMPORTED.read_bytes())
    assert cards.run("cards")[0] == 0
    assert names(folder) == {"imported.yaml", "card.en.md", "card.zh.md"}
    measured = cards.add("abacus/poet", "2026.11.24.1")
    cards.correct("| At a glance | |", "| In short | |")
    assert cards.run("cards")[1].endswith("cards: 1, changed: 1\n")
    assert "In short" in (measured / "card.en.md").read_text("utf-8")


def test_nothing_is_written_when_one_card_cannot_be(cards: Cards) -> None:
    good = cards.add("abacus/poet", "2026.11.24.1")
    about = cpu_record().about.model_copy(update={"prompt": ""})
    cards.add("abacus/critic", "2026.11.24.1", about=about)
    code, _, error = cards.run("cards")
    assert code == 1
    assert error.startswith("error: 1 of 2 cards cannot be written, so none is\nabacus/critic: ")
    assert "about: no prompt" in error
    assert names(good) == {"record.json"}


# What is shown


def test_a_second_run_changes_nothing(cards: Cards) -> None:
    cards.add("abacus/poet", "2026.11.24.1")
    cards.run("cards")
    assert cards.run("cards") == (0, "cards: 1, changed: 0\n", "")
    assert cards.run("cards", "--check") == (0, "cards: 1, all as their records give them\n", "")


def test_a_corrected_template_is_shown_once_for_all_cards_that_it_changes(cards: Cards) -> None:
    for cell in ("abacus/poet", "abacus/critic", "loom/poet"):
        cards.add(cell, "2026.11.24.1")
    cards.run("cards")
    cards.correct()
    assert cards.run("cards")[1] == (
        "out/2026.11.24.1/abacus/poet/card.en.md\n"
        "  and out/2026.11.24.1/abacus/critic/card.en.md\n"
        "  and out/2026.11.24.1/loom/poet/card.en.md\n"
        "-## Performance\n"
        "+## Speed\n"
        "\n"
        "cards: 3, changed: 3\n"
    )


def test_the_check_writes_nothing_and_shows_the_difference(cards: Cards) -> None:
    folder = cards.add("abacus/poet", "2026.11.24.1")
    cards.run("cards")
    before = (folder / "card.en.md").read_bytes()
    cards.correct()
    assert cards.run("cards", "--check") == (
        1,
        "",
        "error: cards differ from what their records and templates give\n"
        "out/2026.11.24.1/abacus/poet/card.en.md\n"
        "-## Performance\n"
        "+## Speed\n"
        "hint: nox -s cards writes them anew\n",
    )
    assert (folder / "card.en.md").read_bytes() == before


def test_a_corrected_command_is_printed_and_says_that_it_was_not_executed_since(
    cards: Cards,
) -> None:
    record = record_of("abacus/poet", "2026.11.24.1")
    blocks = guide_blocks(record, project_in(cards.folder).templates)
    ran = (
        RehearsedBlock(section=one.section, language=one.language, text=one.text, status="passed")
        for one in blocks
    )
    result = RehearseResult(blocks_sha256=blocks_sha256(blocks), blocks=tuple(ran))
    folder = cards.out.write(record.with_stage("rehearse", passed(result))).parent
    path = cards.folder / "templates/parts/card/commands.j2"
    path.write_text(path.read_text().replace("docker rm --force", "docker rm --volumes --force"))
    assert cards.run("cards")[0] == 0
    page = (folder / "card.en.md").read_text("utf-8")
    assert page.count("*Changed since the rehearsal of 2026-11-24; not executed since.*") == 1
    assert cards.run("cards", "--check")[0] == 0


def test_a_rule_that_a_corrected_template_breaks_is_told_and_nothing_is_written(
    cards: Cards,
) -> None:
    folder = cards.add("abacus/poet", "2026.11.24.1")
    cards.run("cards")
    before = (folder / "card.en.md").read_bytes()
    cards.correct("## Performance", "## Performance\n\nAbout 98765 times as fast.")
    code, _, error = cards.run("cards")
    assert code == 1
    assert "numbers: 98765 is no number of the record" in error
    assert (folder / "card.en.md").read_bytes() == before


# Hubs


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names to which the folder hub committed."""
    made: list[str] = []
    real: Callable[..., None] = hub_folder.FolderHub.commit

    def commit(self: hub_folder.FolderHub, name: str, change: Any) -> None:
        made.append(name)
        real(self, name, change)

    monkeypatch.setattr(hub_folder.FolderHub, "commit", commit)
    return made


def published(cards: Cards, release: str = "2026.11.24.1") -> Mapping[str, bytes]:
    hub = cards.folder / "out/hub" / record_of("abacus/poet", release).about.hub_name
    return {path.name: path.read_bytes() for path in hub.iterdir()} if hub.exists() else {}


def test_only_cards_that_changed_are_published_and_only_once(
    cards: Cards, commits: list[str]
) -> None:
    folder = cards.out.write(promoted(record_of("abacus/poet", "2026.11.24.1"))).parent
    assert cards.run("cards", "--publish")[0] == 0
    assert published(cards)["README.md"] == (folder / "card.en.md").read_bytes()
    assert cards.run("cards", "--publish")[1] == (
        "cards: 1, changed: 0\nabacus/poet 2026.11.24.1: published as it is\n"
    )
    cards.correct()
    assert cards.run("cards", "--publish")[0] == 0
    assert b"## Speed" in published(cards)["README.md"]
    assert len(commits) == 2


def test_what_was_published_is_in_the_record_as_a_release_would_have_it(cards: Cards) -> None:
    path = cards.out.write(promoted(record_of("abacus/poet", "2026.11.24.1")))
    cards.run("cards", "--publish")
    record = Record.model_validate_json(path.read_bytes())
    assert record.stages.card is not None
    assert record.stages.card.result is not None
    assert {file.path: file.sha256 for file in record.stages.card.result.files} == {
        name: sha256_bytes((path.parent / name).read_bytes()) for name in FILES
    }
    stages: tuple[StageName, ...] = ("card", "publish")
    for stage in stages:
        found = record.stages.get(stage)
        assert found is not None
        assert found.parts == parts_in_flow(project_in(cards.folder), record, stage)
        assert found.key == key_of(found.parts)


def parts_in_flow(project: Project, record: Record, stage: StageName) -> Mapping[str, str]:
    """The parts that the flow gives a stage of this record."""
    cell = one_cell(project, record.chip, record.model)
    made = project.inputs(cell, project.target("local"), builder="", node="")
    inputs = replace(made, about=record.about)
    return parts_of(stage, cell, inputs, record.stages, record.release)


def test_a_waived_cell_has_a_card_that_is_written_anew_and_published_like_others(
    cards: Cards,
) -> None:
    record = promoted(record_of("abacus/poet", "2026.11.24.1"))
    accuracy = record.stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    judged = accuracy.result.verdict.model_copy(update={"status": "inconclusive"})
    result = accuracy.result.model_copy(update={"verdict": judged})
    waiver = Waiver(cell=record.cell, by="Ada", reason="few items", expires=date(2026, 12, 31))
    undecided = accuracy.model_copy(update={"status": "inconclusive", "result": result})
    about = record.about.model_copy(update={"waiver": waiver})
    cards.out.write(record.with_stage("accuracy", undecided).model_copy(update={"about": about}))
    assert cards.run("cards", "--publish")[0] == 0
    assert b"Ada waived the gate, until 2026-12-31" in published(cards)["README.md"]


def test_a_release_that_was_not_promoted_is_not_published(cards: Cards, commits: list[str]) -> None:
    cards.add("abacus/poet", "2026.11.24.1")
    code, output, _ = cards.run("cards", "--publish")
    assert (code, commits) == (0, [])
    assert output.endswith("abacus/poet 2026.11.24.1: not promoted, so not published\n")


def test_of_two_releases_the_newest_is_published(cards: Cards) -> None:
    cards.out.write(promoted(record_of("abacus/poet", "2026.11.24.2")))
    cards.committed.write(promoted(record_of("abacus/poet", "2026.11.24.3")))
    assert cards.run("cards", "--publish")[0] == 0
    assert b"release `2026.11.24.3`" in published(cards)["README.md"]


def test_a_check_does_not_publish(cards: Cards) -> None:
    assert cards.run("cards", "--check", "--publish") == (
        2,
        "",
        "error: --check writes nothing and --publish does\nhint: leave one of them out\n",
    )


def test_a_public_target_asks_for_consent_before_anything_is_written(cards: Cards) -> None:
    folder = cards.add("abacus/poet", "2026.11.24.1")
    code, _, error = cards.run("cards", "--publish", "--target", "world")
    assert code == 2
    assert "the target world is public and needs consent" in error
    assert names(folder) == {"record.json"}
