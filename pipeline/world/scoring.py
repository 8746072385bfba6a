"""What an answer is worth: pure functions of logprobs and texts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

# vLLM writes -inf as this number, which JSON can hold.
MINUS_INFINITY = -9999.0
# A sign is part of a number only where it is no minus between two terms: 5-3 ends in 3.
NUMBER = re.compile(r"(?:(?<![\w)])-)?\$?\d+(?:,\d{3})*(?:\.\d+)?", re.ASCII)
# Only a number right behind the marker: "#### Step 2" is a heading.
MARKED = re.compile(rf"####\s*({NUMBER.pattern})", re.ASCII)


def continuation_logprob(
    entries: Sequence[Mapping[str, float | None] | None], ids: Sequence[int], start: int
) -> float:
    """Sum of the log-probabilities of ids[start:], in nats, from vLLM's `prompt_logprobs`.

    An entry maps token ids, as strings, to log-probabilities; the first is None. NaN where the
    continuation is empty or one of its values is missing, not finite or vLLM's minus infinity.
    """
    if not len(entries) == len(ids) > start:
        return math.nan
    total = 0.0
    for entry, token in zip(entries[start:], ids[start:], strict=True):
        value = entry.get(str(token)) if entry else None
        if value is None or not math.isfinite(value) or value <= MINUS_INFINITY:
            return math.nan
        total += value
    return total


def best_choice(scores: Sequence[float]) -> int | None:
    """Index of the highest score; None on a tie for it, or where any score is NaN."""
    if not scores or any(math.isnan(score) for score in scores):
        return None
    best = max(scores)
    return scores.index(best) if scores.count(best) == 1 else None


def extracted_number(text: str) -> str:
    """The number right after the last "####", else the last number of the text, else "".

    Plain decimal without dollar sign, separators or idle zeros: equal numbers are equal texts.
    """
    found = MARKED.findall(text) or NUMBER.findall(text)
    return _plain(found[-1]) if found else ""


def _plain(number: str) -> str:
    sign = "-" if number.startswith("-") else ""
    whole, _, fraction = number.lstrip("-$").replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    whole = whole.lstrip("0") or "0"
    plain = f"{whole}.{fraction}" if fraction else whole
    return plain if plain == "0" else sign + plain
