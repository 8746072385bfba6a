"""The cells of a matrix: all of them, which are none and why, and those that words of the command line select."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from pipeline.cell import Cell
from pipeline.errors import NothingSelectedError, UsageError
from pipeline.matrix import CellOverride, Matrix
from pipeline.matrix_names import nearest
from pipeline.model import Model
from pipeline.placement import obstacles


def cells(matrix: Matrix) -> tuple[Cell, ...]:
    """Every cell of the product that is not excluded, in the order of the file."""
    every = tuple(product(matrix))
    excluded = _exclusions(matrix, every)
    return tuple(cell for cell in every if cell.id not in excluded)


def exclusions(matrix: Matrix) -> dict[str, str]:
    """Why cells of the product are none, by id: as the matrix says, or because no node of the chip holds the model."""
    return _exclusions(matrix, product(matrix))


def _exclusions(matrix: Matrix, every: Iterable[Cell]) -> dict[str, str]:
    said = {exclusion.cell: exclusion.why for exclusion in matrix.cells.exclude}
    found = {}
    for cell in every:
        arguments = cell.serve_arguments(cell.chip.released)
        why = said.get(cell.id) or "; ".join(obstacles(cell.chip, cell.model, arguments))
        if why:
            found[cell.id] = why
    return found


def product(matrix: Matrix) -> Iterator[Cell]:
    """Every chip with every model, excluded or not."""
    for chip_id, chip in matrix.chips.items():
        for model_id, model in matrix.models.items():
            override = matrix.cells.overrides.get(f"{chip_id}/{model_id}", CellOverride())
            yield Cell(
                chip_id=chip_id,
                model_id=model_id,
                chip=chip,
                model=_with_own_weights(model, override),
                project=matrix.project,
                override=override,
                base_gate=matrix.gate,
                all_benchmarks=matrix.benchmarks,
            )


def _with_own_weights(model: Model, override: CellOverride) -> Model:
    own = {name: value for name in ("weights", "size") if (value := getattr(override, name))}
    return model.model_copy(update=own) if own else model


def select(matrix: Matrix, patterns: Sequence[str]) -> tuple[Cell, ...]:
    """Cells whose chip and model match the globs: `[]`, `[chip]`, `[chip, model]` or `["chip/model", …]`.

    Raises UsageError for a word that names nothing known, NothingSelectedError when no cell is left.
    """
    asked = _asked(matrix, patterns)
    chosen = tuple(cell for cell in cells(matrix) if cell.id in asked)
    if not chosen:
        excluded = excluded_of(matrix, patterns)
        reasons = [f"{cell}: excluded, {why}" for cell, why in excluded.items()]
        raise NothingSelectedError(
            f"no cell matches {' '.join(patterns)}",
            details="\n".join(reasons),
            hint="`nox -s plan` lists the cells of the matrix",
        )
    return chosen


def one_cell(cells: Sequence[Cell], verb: str, example: str) -> Cell:
    if len(cells) != 1:
        named = ", ".join(cell.id for cell in cells)
        raise UsageError(
            f"name exactly one cell to {verb}, this names {named}", hint=f"for example: {example}"
        )
    return cells[0]


def excluded_of(matrix: Matrix, patterns: Sequence[str]) -> dict[str, str]:
    """Of the cells that match, those that are excluded, and why."""
    asked = _asked(matrix, patterns)
    return {cell: why for cell, why in exclusions(matrix).items() if cell in asked}


def _asked(matrix: Matrix, patterns: Sequence[str]) -> set[str]:
    pairs = _pairs(patterns)
    for chip_glob, model_glob in pairs:
        _must_match(chip_glob, matrix.chips, "chip")
        _must_match(model_glob, matrix.models, "model")
    return {
        f"{chip}/{model}"
        for chip in matrix.chips
        for model in matrix.models
        if any(
            fnmatch.fnmatchcase(chip, chip_glob) and fnmatch.fnmatchcase(model, model_glob)
            for chip_glob, model_glob in pairs
        )
    }


def _pairs(patterns: Sequence[str]) -> list[tuple[str, str]]:
    if any("/" in pattern for pattern in patterns):
        split = [pattern.partition("/") for pattern in patterns]
        return [(chip, model or "*") for chip, _, model in split]
    if len(patterns) > 2:
        raise UsageError(
            f"expected a chip and a model, got {' '.join(patterns)}",
            hint="several cells are selected by globs (nvidia 'qwen*') or as chip/model words",
        )
    chip, model = [*patterns, "*", "*"][:2]
    return [(chip, model)]


def _must_match(glob: str, known: Iterable[str], kind: str) -> None:
    words = list(known)
    if not any(fnmatch.fnmatchcase(word, glob) for word in words):
        wild = any(sign in glob for sign in "*?[")
        error = NothingSelectedError if wild else UsageError
        raise error(f"no {kind} is called {glob}", hint=nearest(glob, words))
