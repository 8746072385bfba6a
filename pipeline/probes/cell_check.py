"""The operator check of a built cell, and its report on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pipeline.canonical import canonical, write_whole
from pipeline.operator_evidence import AskedOperators
from pipeline.probes.built import BuiltCell, candidate_of
from pipeline.probes.candidate import library_in
from pipeline.probes.checking import check_operators
from pipeline.world.operator_check import OperatorCheck

Say = Callable[[str], None]


def check_cell(
    served: BuiltCell,
    stack: str,
    say: Say,
    asked: AskedOperators | None = None,
    kernels: Path | None = None,
) -> tuple[OperatorCheck, Path]:
    """The stack with its operators as `asked`, without it all on; the report is also the first hint for a search."""
    library = library_in(served.engine, served.image, served.cell, stack)
    candidate = replace(candidate_of(served, stack, library), kernels=kernels)
    enabled = asked.of(library.operators) if asked else candidate.operators
    found = check_operators(candidate, enabled, served.project.root / "images/serving", say)
    path = served.project.operators_file(served.cell)
    write_whole(path, canonical(found.model_dump(mode="json")) + b"\n")
    return found, path


def known_check(
    served: BuiltCell, stack: str, asked: AskedOperators | None = None
) -> OperatorCheck | None:
    """The report of the same image and stack, where there is one; `asked`: with these operators alone."""
    path = served.project.operators_file(served.cell)
    if not path.exists():
        return None
    found = OperatorCheck.model_validate_json(path.read_bytes())
    if (found.image, found.stack) != (served.image, stack):
        return None
    is_same = asked is None or (not asked.include and set(asked.exclude) == set(found.excluded))
    return found if is_same else None
