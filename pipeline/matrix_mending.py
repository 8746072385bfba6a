"""What is sound in a matrix with faults, so that broken names are reported in the same breath as wrong values. Pure."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import ValidationError

from pipeline.matrix import Matrix
from pipeline.yaml_source import Path_

ROUNDS = 20  # each takes out something; a block whose last required key went goes in the next
# Stands in for a top block that is missing or has lost a required key; nothing is read from it.
STAND_INS: dict[str, Any] = {
    "project": {"source": "", "vendor": ""},
    "targets": {},
    "gate": {"alpha": 0.05, "margin": 0.05, "power_margins": 0, "concurrency": 1, "seed": 0},
    "benchmarks": {},
}


def without_faults(data: Any) -> tuple[Matrix | None, frozenset[Path_]]:
    """The matrix without its faulty values, and the paths that went with them; None: too little is left."""
    sound, left_out = copy.deepcopy(data), set[Path_]()
    for _ in range(ROUNDS):
        try:
            return Matrix.model_validate(sound), frozenset(left_out)
        except ValidationError as error:
            for found in error.errors():
                path = tuple(part for part in found["loc"] if part != "[key]")
                _take_out(sound, path, is_missing=found["type"] == "missing", left_out=left_out)
    return None, frozenset(left_out)


def _take_out(data: Any, path: Path_, *, is_missing: bool, left_out: set[Path_]) -> None:
    """The value at a path; a list as a whole; where a key is missing, the block that should have it."""
    if is_missing and len(path) == 1 and path[0] in STAND_INS:
        data[path[0]] = STAND_INS[str(path[0])]
        return
    path = path[:-1] if is_missing else path
    block, at = data, 0
    while at < len(path) - 1 and isinstance(block, dict) and isinstance(block.get(path[at]), dict):
        block, at = block[path[at]], at + 1
    if isinstance(block, dict) and path and path[at] in block:
        del block[path[at]]
        left_out.add(path[: at + 1])
