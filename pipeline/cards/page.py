"""A rendered card as its rules look at it: blocks, lines of prose, tables and sections. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pipeline.cards.blocks import Block, code_blocks, without_front_matter

NUMBER = re.compile(r"\d+(?:\.\d+)*")
# What Chinese counts in ten thousands, English counts in thousands.
UNITS = {"million": 10**6, "billion": 10**9, "万": 10**4, "亿": 10**8}
SCALED = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(UNITS)})")
LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?P<target>[^)]*)\)|<(?P<bare>https?:[^>]*)>")
CODE = re.compile(r"`([^`]*)`")
ITEM = re.compile(r"^ *(?:-|\d+\.) ", re.MULTILINE)
BAR = re.compile(r"(?<!\\)\|")


class Line(NamedTuple):
    number: int  # from 1
    text: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells without their outer bars; the second row is the one of dashes."""

    line: int
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Section:
    """What stands under one heading and is the same in every language."""

    title: str
    level: int
    numbers: frozenset[str]
    code: frozenset[str]
    links: frozenset[str]
    items: int  # of lists
    tables: tuple[tuple[int, int], ...]  # rows and columns
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    name: str
    text: str

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return code_blocks(self.text)

    @cached_property
    def lines(self) -> int:
        return self.text.count("\n") + 1

    @cached_property
    def prose(self) -> tuple[Line, ...]:
        """The lines outside of front matter and blocks."""
        inside = {line for block in self.blocks for line in block.lines}
        lines = without_front_matter(self.text).splitlines()
        return tuple(
            Line(number=number, text=text)
            for number, text in enumerate(lines, start=1)
            if number not in inside
        )

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        return tuple(_tables(self.prose))

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        return tuple(_sections(self))


def links_of(text: str) -> Iterator[tuple[str, str]]:
    """Text and target of every link; what stands in code is none."""
    if "](" not in text and "<http" not in text:
        return
    for found in LINK.finditer(CODE.sub("`code`", text)):
        yield found["text"] or "", found["target"] if found["bare"] is None else found["bare"]


def _spelled_out(text: str) -> str:
    """`20 million` and `2000 万` as 20000000."""
    return SCALED.sub(lambda found: f"{float(found[1]) * UNITS[found[2]]:.0f}", text)


def _tables(prose: tuple[Line, ...]) -> Iterator[Table]:
    rows: list[tuple[str, ...]] = []
    for line, following in zip(prose, [*prose[1:], None], strict=True):
        if not line.text.lstrip().startswith("|"):
            continue
        rows.append(tuple(cell.strip() for cell in BAR.split(line.text.strip())[1:-1]))
        goes_on = following is not None and following.number == line.number + 1
        if not goes_on or following is None or not following.text.lstrip().startswith("|"):
            yield Table(line=line.number - len(rows) + 1, rows=tuple(rows))
            rows = []


def _sections(page: Page) -> Iterator[Section]:
    places = [place for place, line in enumerate(page.prose) if line.text.startswith("#")]
    for place, next_place in zip(places, [*places[1:], len(page.prose)], strict=True):
        inside = page.prose[place + 1 : next_place]
        joined = "\n".join(line.text for line in inside)
        level, _, title = page.prose[place].text.partition(" ")
        end = page.prose[next_place].number if next_place < len(page.prose) else page.lines + 1
        lines = range(page.prose[place].number, end)
        yield Section(
            title=title,
            level=len(level),
            numbers=frozenset(NUMBER.findall(_spelled_out(joined))),
            code=frozenset(CODE.findall(joined)),
            links=frozenset(target for _, target in links_of(joined)),
            items=len(ITEM.findall(joined)),
            tables=tuple(
                (len(table.rows), len(table.rows[0]))
                for table in page.tables
                if table.line in lines
            ),
            blocks=tuple(block.text for block in page.blocks if block.line in lines),
        )
