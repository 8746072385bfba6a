"""The code blocks of a rendered card, in the order in which a reader meets them. Pure; nothing else extracts them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from markdown_it import MarkdownIt
from markdown_it.token import Token

from pipeline.canonical import canonical, sha256_bytes

# Inside of lines there are no blocks, and what these others find holds none.
_PARSER = MarkdownIt("commonmark").disable(["inline", "lheading", "reference", "hr"])


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block, as printed."""

    language: str  # the word after the opening fence; "" without one
    text: str  # ends with a line feed, like the file a reader would paste it into
    section: str  # title of the heading above it
    line: int  # of the card, from 1, where the fence opens

    @property
    def lines(self) -> range:
        """Of the card, from the opening fence to the closing one."""
        return range(self.line, self.line + self.text.count("\n") + 2)


def is_command(block: Block) -> bool:
    """Whether a reader runs it."""
    return block.language in ("bash", "python")


@lru_cache(maxsize=8)  # stage and validator ask of the same cards
def code_blocks(card: str) -> tuple[Block, ...]:
    """All fenced blocks, those inside of lists too, as CommonMark reads them."""
    return tuple(_blocks(_PARSER.parse(without_front_matter(card))))


def blocks_sha256(blocks: Sequence[Block]) -> str:
    """Names exactly these commands in this order. Prose, headings and line numbers do not enter."""
    return sha256_bytes(canonical([[block.language, block.text] for block in blocks]))


def with_note(card: str, blocks: Sequence[Block], note: str) -> str:
    """The card with a paragraph below each of these blocks of it."""
    lines = card.split("\n")
    for block in reversed(blocks):
        below = block.lines.stop - 1
        lines[below:below] = ["", note]
    return "\n".join(lines)


def without_front_matter(card: str) -> str:
    """The front matter is blanked, so that lines keep their numbers."""
    head, end, body = card.partition("\n---\n")
    if not card.startswith("---\n") or not end:
        return card
    return "\n" * (head.count("\n") + 2) + body


def _blocks(tokens: Sequence[Token]) -> Iterator[Block]:
    section = ""
    for before, token in zip([None, *tokens], tokens, strict=False):
        if before is not None and before.type == "heading_open":
            section = token.content
        if token.type == "fence":
            yield Block(
                language=token.info.partition(" ")[0],
                text=token.content,
                section=section,
                line=(token.map or [0])[0] + 1,
            )
