"""The page of the whole matrix: each cell's state follows from its newest record, and every link leads somewhere."""

from __future__ import annotations

import re
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.matrix_page import Found, committed_records, imported_cards, page_files, squares
from pipeline.naming import release_order
from pipeline.record import Record, RecordStore, StageName
from pipeline.release_index import Tombstone
from pipeline.results import PromoteResult
from pipeline.stages.render import drift
from pipeline.tombstones import keep_tombstone
from pipeline.waiver import Waiver
from tests.projects import ROOT, committed, toy_project
from tests.record_parts import passed
from tests.records import cpu_record

PROJECT = committed()
RECORDS, IMPORTED = committed_records(ROOT), imported_cards(ROOT)
FILES = page_files(PROJECT.matrix, RECORDS, IMPORTED, PROJECT.templates)
HTML = FILES["docs/matrix.html"].decode()
VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Tags in balance, ids, what is linked to and what opens."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.targets: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.targets += [found["popovertarget"]] if "popovertarget" in found else []
        self.loaded += [found[name] for name in ("src", "srcset") if name in found]
        self.loaded += [tag] if tag in ("link", "script", "iframe") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page() -> Page:
    read = Page()
    read.feed(HTML)
    assert read.open == []
    return read


def of_record(record: Record) -> tuple[str, str]:
    """State and words of cpu/smollm2 with this record."""
    known = {"cpu/smollm2": Found(record=record, has_card=True)}
    square = squares(PROJECT.matrix, known, {})["cpu/smollm2"]
    return square.state, square.says


def stopped(stage: StageName, status: str, error: str) -> Record:
    record = cpu_record()
    found = record.stages.get(stage)
    assert found is not None
    return record.with_stage(stage, found.model_copy(update={"status": status, "error": error}))


def test_the_committed_page_is_fresh() -> None:
    assert drift(ROOT, FILES, whole_matrix=False) == "", "run nox -s page"


def test_the_page_has_every_cell_of_the_product_once() -> None:
    cells = squares(PROJECT.matrix, RECORDS, IMPORTED)
    chips, models = PROJECT.matrix.chips, PROJECT.matrix.models
    assert list(cells) == [f"{chip}/{model}" for chip in chips for model in models]
    assert len(cells) >= 150
    assert {cell.id for cell in PROJECT.cells} == {
        c for c, s in cells.items() if s.state != "excluded"
    }


def test_every_excluded_cell_says_why_and_every_untested_one_what_is_not_known_of_its_chip() -> (
    None
):
    cells = squares(PROJECT.matrix, {}, {})
    assert [c for c, s in cells.items() if s.state == "excluded" and not s.says] == []
    silent = {s.chip for s in cells.values() if s.state == "untested" and not s.doubts}
    assert silent == {"cpu", "nvidia"}, "chips that were at hand"


def test_a_cell_without_a_record_is_untested_never_passed() -> None:
    assert {square.state for square in squares(PROJECT.matrix, {}, {}).values()} == {
        "untested",
        "excluded",
    }


def test_a_promoted_record_is_released_with_the_sentence_of_its_verdict() -> None:
    record = cpu_record()
    accuracy = record.stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    sentence = accuracy.result.verdict.sentence
    assert of_record(record) == ("passed", sentence)
    promoted = PromoteResult(reference="r", tag="t", digest="d", copied_bytes=0, mounted_blobs=0)
    assert of_record(record.with_stage("promote", passed(promoted))) == ("released", sentence)


def test_what_was_withdrawn_gives_way_to_the_release_before_and_alone_says_why(
    tmp_path: Path,
) -> None:
    store = RecordStore(tmp_path / "records")
    folders = [
        store.write(cpu_record().model_copy(update={"release": release})).parent
        for release in ("2026.11.24.9", "2026.11.24.10")
    ]
    stone = Tombstone(
        event="yanked",
        release="2026.11.24.10",
        cell="cpu/smollm2",
        digest="sha256:d",
        by="Ada",
        reason="wrong answers",
        time="2026-11-25T00:00:00+00:00",
        replaced_by="2026.11.24.9",
    )
    keep_tombstone(folders[1], stone)
    assert committed_records(tmp_path)["cpu/smollm2"].record.release == "2026.11.24.9"
    (folders[0] / "record.json").unlink()
    (square,) = [
        one
        for one in squares(PROJECT.matrix, committed_records(tmp_path), {}).values()
        if one.state == "withdrawn"
    ]
    assert (square.id, square.says) == ("cpu/smollm2", stone.sentence)


def test_a_waived_cell_is_shown_as_far_as_it_came_with_its_waiver() -> None:
    waiver = Waiver(cell="cpu/smollm2", by="Ada", reason="few items", expires=date(2026, 12, 31))
    record = stopped("accuracy", "inconclusive", "undecided")
    about = record.about.model_copy(update={"waiver": waiver})
    state, says = of_record(record.model_copy(update={"about": about}))
    assert state == "passed"
    assert says.endswith("; Ada waives it until 2026-12-31: few items")


@pytest.mark.parametrize(
    ("stage", "status", "state"),
    [
        ("smoke", "failed", "failed"),
        ("accuracy", "invalid", "failed"),
        ("accuracy", "inconclusive", "inconclusive"),
    ],
)
def test_a_stage_that_did_not_pass_is_named_with_the_first_line_of_its_reason(
    stage: StageName, status: str, state: str
) -> None:
    record = stopped(stage, status, "what was wrong\nand the log")
    assert of_record(record) == (state, f"{stage} refused it: what was wrong")


def test_a_release_that_stopped_early_is_no_verdict() -> None:
    record = cpu_record()
    early = record.model_copy(
        update={"stages": record.stages.model_copy(update={"accuracy": None, "performance": None})}
    )
    assert of_record(early) == ("untested", "the release stopped before accuracy was measured")


def test_the_newest_committed_record_of_a_cell_counts() -> None:
    releases = [path.parts[-4] for path in ROOT.glob("records/*/nvidia/smollm2/record.json")]
    assert RECORDS["nvidia/smollm2"].record.release == max(releases, key=release_order)


def test_every_cell_opens_what_is_known_of_it() -> None:
    read = page()
    assert sorted(read.targets) == sorted(i for i in read.ids if not i.startswith("show-"))
    assert len(read.targets) == len(set(read.targets)) == len(squares(PROJECT.matrix, {}, {}))


def test_the_page_loads_nothing_and_its_local_links_are_there() -> None:
    read = page()
    assert read.loaded == []
    assert "url(" not in HTML
    assert "@import" not in HTML
    local = {link for link in read.links if "://" not in link}
    local |= set(re.findall(r"\]\((?!https?:)([^)]+)\)", FILES["docs/matrix.md"].decode()))
    assert local
    assert [link for link in sorted(local) if not (ROOT / "docs" / link).exists()] == []


def test_words_of_the_matrix_are_no_markup(tmp_path: Path) -> None:
    project = toy_project(tmp_path, ("title: Poet-1B", "title: <b>Poet & Co</b>"))
    html = page_files(project.matrix, {}, {}, project.templates)["docs/matrix.html"].decode()
    assert "<b>Poet" not in html
    assert "&lt;b&gt;Poet &amp; Co&lt;/b&gt; on Abacus Beads" in html


def test_every_row_of_the_markdown_page_has_as_many_columns_as_its_head() -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", FILES["docs/matrix.md"].decode(), flags=re.MULTILINE)
    assert len(blocks) == 4
    for block in blocks:
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}
        assert len(columns) == 1


def test_what_somebody_else_published_is_linked_and_stays_untested() -> None:
    square = squares(PROJECT.matrix, RECORDS, IMPORTED)["nvidia/step3"]
    assert (square.published, square.imported) == (
        "step3-FlagOS",
        "../records/imported/nvidia/step3/card.en.md",
    )
    assert (square.state, square.card, square.says) == ("untested", "", "")
