"""Squares that a model is asked of: real pictures, and answers that cannot be right without looking."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest

from pipeline.cards.guide import PICTURE
from pipeline.pictures import COLOURS, names_only, question_of, square


def pixels(png: bytes) -> tuple[int, int, set[tuple[int, ...]]]:
    """Width, height and colours of a PNG of 8-bit RGB whose lines are not filtered; every chunk's sum is checked."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data, size = 8, b"", (0, 0)
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert png[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(kind + body))
        size = struct.unpack(">II", body[:8]) if kind == b"IHDR" else size
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    width, height = size
    raw, step = zlib.decompress(data), 1 + 3 * width
    assert len(raw) == step * height
    lines = [raw[step * line : step * (line + 1)] for line in range(height)]
    assert all(line[0] == 0 for line in lines)
    found = {tuple(line[at : at + 3]) for line in lines for at in range(1, step, 3)}
    return width, height, found


@pytest.mark.parametrize("colour", COLOURS)
def test_a_square_is_a_picture_of_one_colour(colour: str) -> None:
    assert pixels(square(*COLOURS[colour])) == (64, 64, {COLOURS[colour]})


def test_the_card_shows_the_red_one() -> None:
    assert pixels(base64.b64decode(PICTURE)) == pixels(square(*COLOURS["red"]))


def test_a_question_holds_the_picture_and_the_text() -> None:
    picture, text = question_of("blue")
    assert picture["type"] == "image_url"
    assert text == {"type": "text", "text": "Which colour is this square?"}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("The square is red.", True),
        ("Red", True),
        ("A rendered square, coloured red", True),
        ("A rendered square", False),
        ("这个方块是红色的。", True),
        ("It is red or blue.", False),
        ("I cannot see pictures.", False),
        ("", False),
    ],
)
def test_an_answer_names_its_colour_and_no_other(answer: str, right: bool) -> None:
    assert names_only("red", answer) is right
