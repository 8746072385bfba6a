"""README and docs: every block is run somewhere or says why not, in words of our command line; an index leads there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from nox import registry

import noxfile  # noqa: F401  # registers the sessions
from pipeline.arguments import options_of
from pipeline.cards.blocks import Block
from tests.documents import (
    LANGUAGES,
    NOT_RUN,
    Page,
    is_edit,
    our_commands,
    page,
    pages,
    where_of,
    with_edit,
)
from tests.projects import ROOT

CHAPTERS = {
    "Run a release": "docs/run-a-release.md",
    "Read a verdict": "docs/read-a-verdict.md",
    "Add a chip": "docs/add-a-chip.md",
    "Add a model": "docs/add-a-model.md",
    "Waive": "docs/waive.md",
    "Roll back": "docs/roll-back.md",
    "Air-gapped node": "docs/air-gapped.md",
    "GitHub set-up": "docs/github.md",
}
COMMANDS = [
    pytest.param(block, id=f"{one.name}:{block.line}") for one in pages() for block in one.commands
]
SESSIONS = set(registry.get())
OF_THE_PROJECT = {"tests", "trials", "lint", "types"}  # sessions that are no command of ours


def named(one: Page) -> str:
    return one.name


@pytest.mark.parametrize("one", pages(), ids=named)
def test_every_block_is_fenced_and_says_what_it_is(one: Page) -> None:
    tokens = MarkdownIt("commonmark").parse(one.path.read_text("utf-8"))
    indented = [token.content for token in tokens if token.type == "code_block"]
    assert indented == []  # nothing would look at it
    assert {block.language for block in one.blocks} <= LANGUAGES
    lost = [block.text for block in one.blocks if block.language != "bash"]
    assert not re.search(r"^(\./bootstrap |nox -s |python -m )", "\n".join(lost), re.MULTILINE)


@pytest.mark.parametrize("block", COMMANDS)
def test_a_block_that_is_not_run_says_what_it_needs(block: Block) -> None:
    first = block.text.partition("\n")[0]
    if where_of(block) == "nowhere":
        assert re.fullmatch(f"{re.escape(NOT_RUN)}\\S.+\\.", first)
        for path in re.findall(r"tests/\w+/\w+\.py", first):
            assert (ROOT / path).exists()
    assert (first.startswith("# N")) is (where_of(block) != "checkout")  # no third comment


@pytest.mark.parametrize("block", COMMANDS)
def test_sessions_and_arguments_of_a_block_are_those_of_the_command_line(block: Block) -> None:
    for session, *words in our_commands(block.text):
        assert session in SESSIONS
        if session not in OF_THE_PROJECT:
            assert options_of([session, *words]).command == session


@pytest.mark.parametrize("text", ["nox -s relaese -- cpu smollm2", "nox -s plan -- --explian"])
def test_a_wrong_session_and_a_wrong_argument_are_seen(text: str) -> None:
    (words,) = our_commands(text)
    with pytest.raises(SystemExit):
        options_of(words)


def test_our_commands_are_found_wherever_they_stand_in_a_line() -> None:
    text = (
        "OUT=back node/start pipeline smoke cpu '*' --node a # x\nnode/over ssh://r@h/f plan cpu\n"
        "./bootstrap nox -s plan -- cpu smollm2 || true\n"
    )
    assert list(our_commands(text)) == [
        ["smoke", "cpu", "*", "--node", "a"],
        ["plan", "cpu"],
        ["plan", "cpu", "smollm2"],
    ]


def test_the_readme_leads_to_every_chapter_and_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    for title, path in CHAPTERS.items():
        assert f"[{title}]({path})" in readme
        assert page(path).commands
        assert len((ROOT / path).read_text("utf-8").splitlines()) < 130
    assert [one.name for one in pages()[1:] if f"]({one.name})" not in readme] == []


@pytest.mark.parametrize("one", pages(), ids=named)
def test_links_between_pages_lead_somewhere(one: Page) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", one.path.read_text("utf-8")):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        there = (one.path.parent / path) if path else one.path
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_what_a_page_puts_into_the_matrix_is_put_under_its_key() -> None:
    block = Block(language="yaml", text="# matrix.yaml, under chips:\n  a: 1\n", section="", line=1)
    assert is_edit(block)
    assert with_edit("x: 1\nchips:\n  b: 2\n", block) == "x: 1\nchips:\n  a: 1\n\n  b: 2\n"


def test_the_table_of_a_chips_keys_names_keys_of_the_example() -> None:
    """Every key that the page names is one that its example chip has, or that only other chips need."""
    text = (ROOT / "docs/add-a-chip.md").read_text("utf-8")
    (example,) = re.findall(r"`(\w+)` is a complete\s+example", text)
    matrix = (ROOT / "matrix.yaml").read_text("utf-8")
    block = matrix.partition(f"\n  {example}:\n")[2].partition("\n\n  ")[0]
    given = set(re.findall(r"^    (\w+):", block, flags=re.MULTILINE))
    table = "\n".join(line for line in text.splitlines() if line.startswith("| "))
    keys = {word for word in re.findall(r"`(\w+)`", table) if word not in ("compiler",)}
    assert keys - given == {"overrides", "skipped_operators", "unknown"}
