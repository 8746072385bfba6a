"""The rules that every card keeps, checked offline: each yields the line and what is wrong there. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Set
from urllib.parse import urlsplit

from pipeline.cards.blocks import Block
from pipeline.cards.known_numbers import NUMBER_OR_HASH, numbers_in
from pipeline.cards.page import Page, Section, links_of

LANGUAGES = ("bash", "python", "json", "yaml", "text")
PLACEHOLDER = re.compile(r"<[a-z]+[a-z_ -]*>")  # <server_ip>: a reader cannot run it
SCRIPT = re.compile(r"<<'EOF'\n(from .*?|import .*?)^EOF$", re.MULTILINE | re.DOTALL)
BODY = re.compile(r"--data ('(?:[^']|'\"'\"')*')")
LEFT_OVERS = ("{{", "{%", "TODO", "FIXME", "Undefined")
NOTHING = {"None", "nan", "inf", "-inf"}

Found = Iterator[tuple[int, str]]


def links(page: Page, files: Set[str]) -> Found:
    for line in page.prose:
        for text, target in links_of(line.text):
            if fault := _link_fault(target, files):
                yield line.number, f"link {target!r}: {fault}"
            elif (
                not text
                and not line.text.lstrip().startswith("!")
                and f"<{target}>" not in line.text
            ):
                yield line.number, f"link {target!r}: it has no text"


def _link_fault(target: str, files: Set[str]) -> str:
    if target in files:
        return ""
    address = urlsplit(target)
    if address.scheme != "https":
        return "neither an https address nor a file beside the card"
    return "" if "." in address.netloc and " " not in target else "no public address"


def blocks(page: Page, repository: str) -> Found:
    """`repository` is the public one of the image: it is only ever named by digest, where it has one."""
    for block in page.blocks:
        if block.language not in LANGUAGES:
            yield (
                block.line,
                f"block in {block.language or 'no language'}, known: {', '.join(LANGUAGES)}",
            )
        for number, text in enumerate(block.text.splitlines(), start=block.line + 1):
            if found := PLACEHOLDER.search(text):
                yield number, f"{found[0]} is no command that a reader can run"
            if text != text.rstrip():
                yield number, "blanks at the end of the line"
            if repository in text and _is_bare(repository, text) and "@sha256:" in page.text:
                yield number, f"{repository} is named without its digest"
        yield from _scripts(block)


def _is_bare(repository: str, text: str) -> bool:
    return bool(re.search(rf"{re.escape(repository)}(?![\w.@/-])", text))


def _scripts(block: Block) -> Found:
    """Python that a block writes or runs compiles; bodies of requests are JSON."""
    scripts = [block.text] if block.language == "python" else SCRIPT.findall(block.text)
    for script in scripts:
        try:
            compile(script, "script", "exec")
        except SyntaxError as error:
            yield block.line, f"Python: {error.msg} in its line {error.lineno}"
    for quoted in BODY.findall(block.text):
        try:
            json.loads(shlex.split(quoted)[0])
        except ValueError as error:
            yield block.line, f"body of a request: {error}"


def tables(page: Page) -> Found:
    for table in page.tables:
        width = len(table.rows[0])
        if len(table.rows) < 3:
            yield table.line, "table without a row"
        if len(table.rows) > 1 and any(set(cell) - set("-: ") for cell in table.rows[1]):
            yield table.line + 1, "table without a line of dashes below its head"
        for number, row in enumerate(table.rows, start=table.line):
            if len(row) != width:
                yield number, f"row of {len(row)} cells under a head of {width}"
            yield from ((number, f"cell with {cell}") for cell in row if cell in NOTHING)


def left_overs(page: Page) -> Found:
    for word in LEFT_OVERS:
        if word in page.text:
            yield from (
                (line.number, f"{word!r} is left from a template")
                for line in page.prose
                if word in line.text
            )


def numbers(page: Page, known: frozenset[str]) -> Found:
    """Every number of the page, its blocks and its front matter is one of the record."""
    doubtful = set(NUMBER_OR_HASH.findall(page.text)) - known  # fixed words are among them
    for number, text in enumerate(page.text.splitlines(), start=1):
        if any(found in text for found in doubtful):
            for unknown in (found for found in numbers_in(text) if found not in known):
                yield number, f"{unknown} is no number of the record"


def languages(page: Page, other: Page) -> Found:
    """Both languages say the same facts, heading by heading."""
    if page.text.split("\n---\n")[0] != other.text.split("\n---\n")[0]:
        yield 1, f"its front matter is not that of {other.name}"
    if len(page.sections) != len(other.sections):
        yield 1, f"it has {len(page.sections)} headings, {other.name} has {len(other.sections)}"
        return
    for mine, theirs in zip(page.sections, other.sections, strict=True):
        for what in SAME:
            if getattr(mine, what) != getattr(theirs, what):
                line = page.text.count("\n", 0, page.text.index(f"# {mine.title}")) + 1
                yield (
                    line,
                    f"{what} under {mine.title!r}: {_difference(mine, theirs, what)} {other.name}",
                )


SAME = ("level", "numbers", "code", "links", "items", "tables", "blocks")


def _difference(mine: Section, theirs: Section, what: str) -> str:
    left, right = getattr(mine, what), getattr(theirs, what)
    if isinstance(left, frozenset):
        return f"only here {sorted(left - right)}, only there {sorted(right - left)}, in"
    return f"{left!r} here, {right!r} in"
