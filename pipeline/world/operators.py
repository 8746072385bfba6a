"""What the workers of a served stack wrote about their operator library (docs/operators.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from pydantic import TypeAdapter

from pipeline.errors import WorldError
from pipeline.operator_evidence import Look, OperatorProcess
from pipeline.world.engine_container import Container

# The hook writes every 2 s while calls are made; then what was asked last is in its files.
LAST_COUNTS_S = 2.5


class OperatorEvidence(OperatorProcess):
    """One process of a served stack, with all that its file says."""

    evidence_schema: Literal[1]
    backend: str  # the dispatch key of its kernels
    dispatcher: Mapping[
        str, str
    ]  # entry of a registered operator → where torch says its kernel is from
    written: float  # seconds since 1970
    ended: bool  # the process ended in order, and these counts are its last

    @property
    def as_recorded(self) -> OperatorProcess:
        return OperatorProcess.model_validate(
            {name: getattr(self, name) for name in OperatorProcess.model_fields}
        )


_ALL = TypeAdapter(tuple[OperatorEvidence, ...])
_PRINT_ALL = """
import json, pathlib, sys
print(json.dumps([json.loads(path.read_text()) for path in sorted(pathlib.Path(sys.argv[1]).glob("rank*.json"))]))
"""


def read_evidence(container: Container, folder: str) -> tuple[OperatorEvidence, ...]:
    """Every process's evidence; none where no library was loaded."""
    code, output = container.execute(["python", "-c", _PRINT_ALL, folder])
    try:
        if code != 0:  # a folder that is not there prints an empty list
            raise ValueError(output)
        return _ALL.validate_json(output)
    except ValueError as error:
        raise WorldError(
            "the workers' evidence of their operators cannot be read",
            where=f"{folder} in {container.name}",
            details=str(error),
            hint="the image's images/serving/ is of another version than this pipeline",
        ) from error


def look_at_operators(
    container: Container,
    folders: Iterable[str],
    *,
    wait: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> Look:
    """What the processes of a served stack last wrote, into the folder of any stack of the cell.

    `wait` lets the counts of the last requests be written first; a stack without a library has none to wait for.
    """
    if wait:
        sleep(LAST_COUNTS_S)
    return tuple(
        process.as_recorded for folder in folders for process in read_evidence(container, folder)
    )
