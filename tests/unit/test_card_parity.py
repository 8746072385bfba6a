"""The published step3 card, fact by fact, in the card of its imported record.

`UPDATE_GOLDEN=1 pytest tests/unit/test_card_parity.py` writes docs/card-parity.md anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from pipeline.cards.imported import PublishedSummary, published_rows, published_summary
from pipeline.cards.page import Page
from pipeline.errors import UsageError
from pipeline.imported_record import read_imported
from pipeline.stages.card import CARDS, card, imported_card
from tests.projects import committed
from tests.published_card import INVENTORY, pieces
from tests.records import nvidia_record

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "records/imported/nvidia/step3"
PARITY = ROOT / "docs/card-parity.md"
TEMPLATES = committed().templates
IMPORTED = read_imported(FOLDER / "imported.yaml")
PARTS = yaml.safe_load((FOLDER / "parity.yaml").read_text("utf-8"))
PUBLISHED = yaml.safe_load(INVENTORY.read_text("utf-8"))
HEAD = """\
# Parity with the published step3 card

Every fact of the published card of `FlagRelease/step3-FlagOS`, and where it stands on the card that is made from the
[imported record](../records/imported/nvidia/step3/imported.yaml). A test looks for each of them in both languages and
writes this page. The last column says what a card of a measured record has there instead.

That no fact is missing: each sentence, row and line of the published card leads to a fact below, or is left out for a
reason that the end of this page gives. [Its inventory](../records/imported/nvidia/step3/published.yaml) has hashes of
them, and the words that are facts.

| Published | Ours, under | literally | On a measured card |
| --- | --- | --- | --- |
"""


LEFT_OUT_HEAD = """
## Left out

| Published, by line and sentence | Why |
| --- | --- |"""


@dataclass(frozen=True, kw_only=True)
class Fact:
    part: str
    text: str
    under: str
    find_en: str
    find_zh: str
    measured: str

    @property
    def on_measured(self) -> str:
        """What a card of measurements has there; "" when neither it nor the list says."""
        return self.measured or ("the same" if self.find_en in MEASURED else "")


def facts() -> Iterator[Fact]:
    for part in PARTS[:-1]:
        for fact in part["facts"]:
            find: Any = fact["find"]
            yield Fact(
                part=part["part"],
                text=str(fact["fact"]),
                under=fact["under"],
                find_en=find if isinstance(find, str) else find["en"],
                find_zh=find if isinstance(find, str) else find["zh"],
                measured=fact.get("measured", ""),
            )


FACTS = tuple(facts())
CARD = imported_card(IMPORTED, TEMPLATES)
MEASURED = card(nvidia_record(), TEMPLATES)[
    "card.en.md"
].decode()  # of step3 too, with a test's numbers


def under(name: str, heading: str) -> str:
    """What stands under a heading of the English card, in the card of that name."""
    english, page = (Page(each, CARD[each].decode()) for each in (CARDS[0], name))
    place = [section.title for section in english.sections].index(heading)
    start, end = (page.sections[place], [*page.sections[place + 1 :], None][0])
    text = page.text[page.text.index(f"{'#' * start.level} {start.title}\n") :]
    return text if end is None else text[: text.index(f"\n{'#' * end.level} {end.title}\n") + 1]


def hub_data(text: str) -> ModelCardData:
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.text)
def test_a_published_fact_is_on_our_card_in_both_languages(fact: Fact) -> None:
    assert fact.find_en in under("card.en.md", fact.under)
    assert fact.find_zh in under("card.zh.md", fact.under)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.text)
def test_a_published_fact_is_on_a_measured_card_or_the_page_says_what_is_there(fact: Fact) -> None:
    assert fact.on_measured, fact.find_en


def left_out_rows() -> Iterator[str]:
    for entry in PARTS[-1]["pieces"]:
        yield f"| {', '.join(entry['pieces'])} | {entry['why']} |"


def test_every_sentence_row_and_line_of_the_published_card_went_somewhere() -> None:
    named = {piece for part in PARTS[:-1] for fact in part["facts"] for piece in fact["pieces"]}
    left_out = {piece for entry in PARTS[-1]["pieces"] for piece in entry["pieces"]}
    assert named | left_out == {row["piece"] for row in PUBLISHED}
    assert all(fact["pieces"] for part in PARTS[:-1] for fact in part["facts"])


def test_every_number_name_and_command_of_the_published_card_is_on_ours() -> None:
    """As it is there, or as the list says that ours writes it; only words of its comments and script are left out."""
    otherwise, words = PARTS[-1]["words"], {word for row in PUBLISHED for word in row["words"]}
    assert len(words) > 140
    assert otherwise.keys() <= words
    for name, language in (("card.en.md", "en"), ("card.zh.md", "zh")):
        text = CARD[name].decode()
        ours = {word: otherwise.get(word, {}) for word in words}
        missing = [
            word
            for word, written in ours.items()
            if "why" not in written and written.get(language, word) not in text
        ]
        assert missing == []
    assert len([word for word in words if "why" in otherwise.get(word, {})]) == 5


def test_the_inventory_names_sentences_rows_and_lines_with_the_words_that_are_facts() -> None:
    card = (
        '# 1. A Title\n\nFlagOS has **4.2** parts. See https://a.test/b: "Go".\n| A | 1 |\n'
        "```bash\nrun --all\n```\n"
    )
    assert [(piece.id, piece.words) for piece in pieces(card)] == [
        ("1.1", ()),
        ("3.1", ("4.2", "FlagOS")),
        ("3.2", ("https://a.test/b", "Go")),
        ("4.1", ("A", "1")),
        ("6.1", ("run", "--all")),
    ]


def test_the_parity_page_is_fresh() -> None:
    rows = [
        f"| {fact.text} | {fact.under} | `{fact.find_en.replace('|', chr(92) + '|')}` | {fact.on_measured} |"
        for fact in FACTS
    ]
    page = HEAD + "\n".join([*rows, LEFT_OUT_HEAD, *left_out_rows()]) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        PARITY.write_text(page, "utf-8")
    assert page == PARITY.read_text("utf-8")


def test_the_card_says_that_nothing_was_reproduced() -> None:
    english, chinese = (CARD[name].decode() for name in CARDS)
    assert "Imported record: nothing on this page was measured or reproduced" in english
    assert "**Not reproduced by us.**" in english
    assert "本页的任何内容都不是由制作本页的人测得或复现的" in chinese
    results = hub_data(english).eval_results or []
    assert [result.metric_value for result in results][:2] == [65.24, 70.86]
    assert {result.metric_name for result in results} == {
        "published score in points, FlagOS, not reproduced"
    }


def test_only_the_differences_are_computed() -> None:
    assert [row.difference for row in published_rows(IMPORTED)] == [
        *("-0.45", "-0.44", "-0.61", "+0.04", "-0.57", "+0.06", "-0.35", "-0.52", "-0.33"),
    ]
    assert published_summary(IMPORTED) == PublishedSummary(
        benchmarks=9, lower=7, largest_loss="0.61", largest_loss_title="MMLU_Pro_standard"
    )


def test_an_imported_record_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    file = tmp_path / "imported.yaml"
    file.write_text("cell: nvidia/step3\n", "utf-8")
    with pytest.raises(UsageError) as caught:
        read_imported(file)
    assert str(caught.value).startswith(f"{file}: this imported record cannot be read\n")
