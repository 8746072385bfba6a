"""Pictures that need no file: squares of one colour, made here, of which a model that sees can be asked. Pure."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Mapping

QUESTION = "Which colour is this square?"  # on the card, too
SIDE = 64  # pixels
COLOURS: Mapping[str, tuple[int, int, int]] = {"red": (255, 0, 0), "blue": (0, 0, 255)}
# How an answer names them; whoever does not look says the same of both squares.
NAMES: Mapping[str, str] = {"red": r"\bred\b|红", "blue": r"\bblue\b|蓝"}


def question_of(colour: str) -> list[dict[str, object]]:
    """The content of a chat message: a square of this colour, and what is asked of it."""
    url = f"data:image/png;base64,{base64.b64encode(square(*COLOURS[colour])).decode()}"
    return [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": QUESTION},
    ]


def names_only(colour: str, answer: str) -> bool:
    """Whether an answer names this colour and none of the others."""
    named = [one for one in COLOURS if re.search(NAMES[one], answer, re.IGNORECASE)]
    return named == [colour]


def square(red: int, green: int, blue: int) -> bytes:
    """PNG of 8-bit RGB: https://www.w3.org/TR/png/."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    line = b"\0" + bytes((red, green, blue)) * SIDE
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(line * SIDE)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
