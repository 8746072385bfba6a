"""The offline validator of cards: every rule over every page, all faults in one go. Pure.

A card that breaks a rule is not written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.cards import front_matter_rules, rules
from pipeline.cards.page import Page
from pipeline.errors import StageRefusedError


@dataclass(frozen=True, kw_only=True)
class Score:
    """One benchmark as the record has it, in points."""

    title: str
    reference: float
    released: float


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the record says of its card."""

    cell: str
    repository: str  # of the image
    known: frozenset[str]  # numbers
    scores: tuple[Score, ...]


@dataclass(frozen=True, kw_only=True)
class Fault:
    page: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.rule}: {self.text}"


def refuse_faulty(files: Mapping[str, bytes], expected: Expected) -> None:
    """Raises StageRefusedError with every fault of the cards among these files."""
    found = faults(files, expected)
    if found:
        raise StageRefusedError(
            f"the card breaks {len(found)} rule{'s' if len(found) > 1 else ''}",
            where=expected.cell,
            details="\n".join(map(str, found)),
            hint="correct templates/ (docs/cards.md says what each rule wants), or the record when it is wrong",
        )


def faults(files: Mapping[str, bytes], expected: Expected) -> tuple[Fault, ...]:
    pages = [Page(name, data.decode()) for name, data in files.items() if name.endswith(".md")]
    return tuple(
        Fault(page=page.name, line=line, rule=rule, text=text)
        for page in pages
        for rule, found in _rules(page, pages, files, expected)
        for line, text in found
    )


def _rules(
    page: Page, pages: list[Page], files: Mapping[str, bytes], expected: Expected
) -> Iterator[tuple[str, rules.Found]]:
    yield "front-matter", front_matter_rules.front_matter(page, expected.scores)
    yield "links", rules.links(page, files.keys())
    yield "blocks", rules.blocks(page, expected.repository)
    yield "tables", rules.tables(page)
    yield "scores", _scores(page, expected.scores)
    yield "left-overs", rules.left_overs(page)
    yield "numbers", rules.numbers(page, expected.known)
    yield (
        "languages",
        (
            fault
            for other in pages[:1]
            if other is not page
            for fault in rules.languages(page, other)
        ),
    )


def _scores(page: Page, scores: tuple[Score, ...]) -> rules.Found:
    """Some table has the row of each benchmark, with the scores of the record behind its title."""
    rows = [row for table in page.tables for row in table.rows]
    for score in scores:
        if not any(_is_row_of(score, row) for row in rows):
            yield (
                1,
                f"no table has {score.title} with {score.reference:.2f} and {score.released:.2f}",
            )


def _is_row_of(score: Score, row: tuple[str, ...]) -> bool:
    if len(row) < 3 or row[0] != score.title:
        return False
    try:
        printed = float(row[1]), float(row[2])
    except ValueError:
        return False
    return all(
        abs(seen - meant) <= front_matter_rules.ROUNDING
        for seen, meant in zip(printed, (score.reference, score.released), strict=True)
    )
