"""The searches of the bisect trial: what is planted, what must be found, and the record of what was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.canonical import canonical, sha256_bytes, sha256_file
from pipeline.culprits import BisectResult
from pipeline.results import Frozen
from tests.projects import ROOT, Changes
from tests.trials.stacks import MOUNTED

RECORD = ROOT / "records/trials/operator-search.json"
LIBRARIES = (ROOT / "tests/planted/crowd.py", ROOT / "tests/planted/library.py")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One of the cases of tests/planted/crowd.py."""

    name: str
    says: str
    failing_sets: frozenset[tuple[str, ...]]

    @property
    def stack(self) -> str:
        return f"culprits_{self.name}"

    def block(self) -> dict[str, Any]:
        """The stack as matrix.yaml would hold it: the reference, and the crowd of operators."""
        return {
            "title": {"en": self.stack, "zh": self.stack},
            "serve": {"dtype": "float32"},
            "env": {"PLANTED_CASE": self.name, "PLANTED_SHA256": libraries_sha256()},
            "operators": {"library": "planted.crowd"},
        }


CASES = (
    Case(name="one", says="one culprit", failing_sets=frozenset({("silu",)})),
    Case(
        name="two",
        says="two independent culprits",
        failing_sets=frozenset({("silu",), ("rotary_embedding",)}),
    ),
    Case(
        name="pair",
        says="two that fail only together",
        failing_sets=frozenset({("fused_add_rms_norm", "rms_norm")}),
    ),
    Case(name="crash", says="one that ends the engine", failing_sets=frozenset({("silu",)})),
)


def libraries_sha256() -> str:
    """Enters every cached answer, as a variable of the stack: the libraries are mounted, not in the image."""
    return sha256_bytes(canonical([sha256_file(path) for path in LIBRARIES]))


def changes(cases: tuple[Case, ...] = CASES) -> Changes:
    folder = LIBRARIES[0].parent
    mounted: dict[tuple[str, ...], Any] = {
        ("chips", "cpu", "run", "volumes"): [f"{folder}:{MOUNTED}:ro"]
    }
    return mounted | {("chips", "cpu", "stacks", case.stack): case.block() for case in cases}


class SearchRow(Frozen):
    case: str
    says: str
    result: BisectResult


class OperatorSearches(Frozen):
    trial_schema: Literal[1] = 1
    finished: str  # UTC, ISO 8601
    libraries_sha256: str
    rows: tuple[SearchRow, ...]


def read_searches(path: Path = RECORD) -> OperatorSearches:
    return OperatorSearches.model_validate_json(path.read_bytes())


def with_row(row: SearchRow, finished: str, path: Path = RECORD) -> OperatorSearches:
    """The record with this case in place; rows of other libraries are dropped."""
    kept = read_searches(path).rows if path.exists() else ()
    if path.exists() and read_searches(path).libraries_sha256 != libraries_sha256():
        kept = ()
    rows = {**{old.case: old for old in kept}, row.case: row}
    return OperatorSearches(
        finished=finished,
        libraries_sha256=libraries_sha256(),
        rows=tuple(rows[case.name] for case in CASES if case.name in rows),
    )
