"""Every number that a record allows on its card, in the forms in which cards print numbers. Pure."""

from __future__ import annotations

import re
from typing import Any

from pipeline.cards.numbers import gigabytes, points

# Words of templates and commands whose digits measure nothing.
FIXED_WORDS = (
    "127.0.0.1", "/v1", "SHA-256", "sha256", "sleep 1", "temperature=0", '"temperature": 0', "choices[0]", "[0]",
    "openai>=1", "python3", "base64", "--wrap=0", "99th percentile", "99 分位",
)  # fmt: skip
# A hash counts as a whole: its digits must not make every small number a known one.
NUMBER_OR_HASH = re.compile(r"[0-9a-f]{40,}|\d+(?:\.\d+)*")
UNPRINTED = ("raw",)  # result files of other programs, kept whole


def known_numbers(values: Any) -> frozenset[str]:
    """Hashes and numbers of JSON values as they are, and as shares, sizes, times and counts are rounded."""
    texts: set[str] = set()
    numbers: set[int | float] = set()
    _collect(values, texts, numbers)
    forms = (form for number in numbers for form in _forms(number))
    return frozenset(NUMBER_OR_HASH.findall("\n".join([*texts, *forms])))


def numbers_in(text: str) -> list[str]:
    for word in FIXED_WORDS:
        text = text.replace(word, "")
    return NUMBER_OR_HASH.findall(text)


def _collect(value: Any, texts: set[str], numbers: set[int | float]) -> None:
    if isinstance(value, str):
        texts.add(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key not in UNPRINTED:
                texts.add(key)
                _collect(inner, texts, numbers)
        numbers.add(sum(item["size_bytes"] for item in value.get("files", ())))
        numbers.add(len(value.get("excluded_operators", ())))
    elif isinstance(value, list):
        numbers.add(len(value))
        for inner in value:
            _collect(inner, texts, numbers)
    elif value is not None and not isinstance(value, bool):
        numbers.add(value)


def _forms(value: float) -> tuple[str, ...]:
    plain = (f"{value}", f"{value:.0f}", f"{value:.1f}", f"{value:.2f}", f"{value:.3f}")
    shares = (points(value, 1), points(value, 2))
    return (*plain, *shares, f"{value:.1e}", gigabytes(int(value)), f"{value // 4}")
