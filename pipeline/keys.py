"""Keys: what a stage reads, as named parts and their hash. A changed part is the reason why a stage runs again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.canonical import canonical, sha256_bytes

Parts = Mapping[str, str]
UNKNOWN = "?"  # a value that an earlier stage of this run has yet to make
_MATRIX = re.compile(r"^(chips|models|gate|benchmarks|cells|project|targets)\.")
_HASH = re.compile(r"^(sha256:)?[0-9a-f]{64}$")


def key_of(parts: Parts) -> str:
    return sha256_bytes(canonical(dict(parts)))


def flatten(value: Any, path: str) -> dict[str, str]:
    """A resolved block as `path.to.value → text`, for the named parts of a key."""
    if isinstance(value, Mapping):
        return {k: v for key in value for k, v in flatten(value[key], f"{path}.{key}").items()}
    if isinstance(value, list | tuple):
        return {path: ", ".join(str(item) for item in value)} if value else {}
    return {} if value is None else {path: str(value)}


def changes(old: Parts, new: Parts) -> tuple[str, ...]:
    """One line for every part that differs."""
    lines = [_change(name, old.get(name), new.get(name)) for name in sorted({*old, *new})]
    return tuple(line for line in lines if line)


def _change(name: str, old: str | None, new: str | None) -> str:
    if old == new:
        return ""
    if new == UNKNOWN:
        return f"{name} changes"
    shown = f"matrix.yaml: {name}" if _MATRIX.match(name) else name
    if any(value is not None and _HASH.match(value) for value in (old, new)):
        verb = "is new" if old is None else "is gone" if new is None else "changed"
        return f"{shown} {verb}"
    return f"{shown} {_text(old)} → {_text(new)}"


def _text(value: str | None) -> str:
    if value is None:
        return "(none)"
    return value if len(value) <= 50 else value[:47] + "…"
