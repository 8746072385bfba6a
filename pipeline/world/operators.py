"""What the workers of a served stack wrote about their operator library (docs/operators.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import TypeAdapter

from pipeline.errors import WorldError
from pipeline.results import Frozen
from pipeline.world.engine import Container


class OperatorEvidence(Frozen):
    """One process of a served stack."""

    evidence_schema: Literal[1]
    library: str
    backend: str  # the dispatch key of its kernels
    rank: int
    process: int
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    available: int  # operators that the library has
    registered: tuple[str, ...]  # those that are on
    dispatcher: Mapping[
        str, str
    ]  # entry of a registered operator → where torch says its kernel is from
    calls: Mapping[str, int]  # of what has run in this process
    started: float  # seconds since 1970
    written: float
    ended: bool  # the process ended in order, and these counts are its last


_ALL = TypeAdapter(tuple[OperatorEvidence, ...])
_PRINT_ALL = """
import json, pathlib, sys
print(json.dumps([json.loads(path.read_text()) for path in sorted(pathlib.Path(sys.argv[1]).glob("rank*.json"))]))
"""


def read_evidence(container: Container, folder: str) -> tuple[OperatorEvidence, ...]:
    """Every process's evidence; none where no library was loaded."""
    code, output = container.execute(["python", "-c", _PRINT_ALL, folder])
    try:
        return _ALL.validate_json(output) if code == 0 else ()
    except ValueError as error:
        raise WorldError(
            "the workers' evidence of their operators cannot be read",
            where=f"{folder} in {container.name}",
            details=str(error),
            hint="the image's images/serving/ is of another version than this pipeline",
        ) from error


def total_calls(processes: Iterable[OperatorEvidence]) -> dict[str, int]:
    """Calls by operator, over all processes."""
    return dict(sum((Counter(process.calls) for process in processes), Counter[str]()))
