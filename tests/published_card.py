"""What a published card says, piece by piece, without its sentences: hashes of them, and the words that are facts.

`python -m tests.published_card CARD` writes records/imported/nvidia/step3/published.yaml from the card's text, which is
not ours and so is not in this repository.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from pipeline.canonical import sha256_bytes
from tests.projects import ROOT

INVENTORY = ROOT / "records/imported/nvidia/step3/published.yaml"
BANNER = """\
# Rendered by `python -m tests.published_card CARD` from the published card of FlagRelease/step3-FlagOS: its pieces by
# line and sentence, each with a hash of its text and the words in it that are facts. parity.yaml says where each went.
"""
_MARKER = re.compile(r"^\s*(?:#+ +|- +|\d+\. +)*")  # of a heading or a list
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z*])")
_URL = re.compile(r"https?://[^\s):\u4e00-\u9fff]+")
_WORDS = (
    _URL,
    re.compile(r"[“\"]([^”\"]+)[”\"]"),  # what is quoted
    re.compile(r"[a-z]+-[a-z]+/[a-z0-9]+"),  # repositories
    re.compile(r"\b\d+(?:\.\d+)*\+?"),
    re.compile(r"\b[A-Za-z]*[a-z][A-Z][A-Za-z]*\b|\b[A-Z]{2,}s?\b"),  # FlagScale, NLP
    re.compile(r"\b(?:Windows|Ubuntu|Triton|Docker|Nvidia|Libra)\b"),
)


@dataclass(frozen=True)
class Piece:
    """A sentence, a row, or a line of a block, named by its line and its place in it."""

    id: str
    sha256: str  # of its text
    words: tuple[str, ...]


def pieces(card: str) -> Iterator[Piece]:
    is_code = False
    for number, line in enumerate(card.splitlines(), start=1):
        if line.startswith("```"):
            is_code = not is_code
        elif line.strip():
            is_whole = is_code or line.startswith("|")
            parts = [line] if is_whole else _SENTENCE.split(_MARKER.sub("", line))
            for place, text in enumerate(parts, start=1):
                words = _code_words(text) if is_code else _prose_words(text)
                yield Piece(f"{number}.{place}", sha256_bytes(text.encode()), words)


def _code_words(line: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.split()))


def _prose_words(text: str) -> tuple[str, ...]:
    if text.startswith("|"):
        cells = (cell.strip() for cell in text.strip("| \n").split("|"))
        return tuple(cell for cell in cells if cell.strip("- "))
    found: list[str] = []
    for pattern in _WORDS:
        for hit in pattern.finditer(text):
            found.append(hit[hit.lastindex or 0])
        text = pattern.sub(" ", text)
    return tuple(dict.fromkeys(found))


def inventory(card: str) -> str:
    rows = [
        {"piece": piece.id, "sha256": piece.sha256[:16], "words": list(piece.words)}
        for piece in pieces(card)
    ]
    text = yaml.safe_dump(rows, allow_unicode=True, width=10_000, sort_keys=False)
    return BANNER + text


if __name__ == "__main__":
    INVENTORY.write_text(inventory(Path(sys.argv[1]).read_text("utf-8")), "utf-8")
