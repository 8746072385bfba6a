"""Reads result files of other programs: whole or not at all, and a fault is named with file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError

Shape = TypeVar("Shape", bound=BaseModel)
HALF = "the file is not whole: the harness was ended while it wrote, or is still writing"
# A letter or several, or a number: nothing that could be text of a benchmark.
UNNAMED = "unnamed"  # the answer of a scorer that gives a score and no answer
_SHORT = re.compile(r"[A-Za-z]{1,10}|[+-]?\d[\d.,]{0,14}")


@dataclass(frozen=True, kw_only=True)
class FoundResult:
    """One item of a result file. `score` from 0 to 1; one that is no such number becomes an error of its row."""

    item: str
    prompt_sha256: str
    score: float = 0
    answer: str = ""  # as `kept_answer` gives it
    is_written: bool = True  # False: chosen by likelihood
    finish_reason: str = ""
    tokens: int = 0
    error: str = ""
    response_sha256: str = ""


def kept_answer(text: object) -> str:
    """An answer as rows keep it: letters and numbers as they are, other text by its hash, "" for none."""
    plain = str(text).strip() if text is not None else ""
    if not plain or _SHORT.fullmatch(plain):
        return plain
    return f"sha256:{sha256_bytes(plain.encode())[:12]}"


def json_lines(path: Path, shape: type[Shape], expected: str) -> Iterator[Shape]:
    """One object a line, each held to `shape`. Raises WorldError at the first line that is not one."""
    content = _text(path)
    if content and not content.endswith("\n"):
        last = content.count("\n") + 1
        raise WorldError("the last line has no end", where=f"{path}:{last}", hint=HALF)
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            yield held_to(shape, _loaded(line, path, number), f"{path}:{number}", expected)


def json_items(path: Path, shape: type[Shape], expected: str) -> Iterator[Shape]:
    """The objects of a file that is one JSON array, each held to `shape` and named by the line it starts at."""
    text = _text(path)
    _loaded(text, path, 1, expected)  # a fault of JSON itself is told with its own line
    at = _behind(text, 0)
    if text[at : at + 1] != "[":
        raise WorldError("no JSON array", where=f"{path}:1", details=f"expected {expected}")
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = _behind(text, at + 1)
    while text[at] != "]":
        line += text.count("\n", counted, at)
        counted = at
        value, end = decoder.raw_decode(text, at)
        yield held_to(shape, value, f"{path}:{line}", expected)
        at = _behind(text, end)


def _behind(text: str, at: int) -> int:
    """The next place that is no space and no comma."""
    while text[at : at + 1] and text[at] in " \t\r\n,":
        at += 1
    return at


def json_document(path: Path, expected: str) -> Any:
    """Raises WorldError with the line at which the file stops being JSON."""
    return _loaded(_text(path), path, 1, expected)


def held_to(shape: type[Shape], value: Any, where: str, expected: str) -> Shape:
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        # Without the input: it may be a benchmark's text.
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise WorldError(
            f"{place}: {first['msg']}", where=where, details=f"expected {expected}"
        ) from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no UTF-8 text"
        raise WorldError(f"cannot be read: {reason}", where=str(path)) from error


def _loaded(text: str, path: Path, first_line: int, expected: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise WorldError(
            f"no JSON at column {error.colno}: {error.msg}",
            where=f"{path}:{line}",
            details=f"expected {expected}" if expected else "",
            hint=HALF if error.pos >= len(text.rstrip()) - 1 else "",
        ) from None
