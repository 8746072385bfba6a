"""What nobody knows of a cell yet, from the matrix alone: why it is `untested`, beside that nobody ran it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.cell import Cell
from pipeline.placement import cards_for, cast_to


def doubts(cell: Cell) -> tuple[str, ...]:
    return tuple(_doubts(cell))


def _doubts(cell: Cell) -> Iterator[str]:
    chip, size = cell.chip, cell.model.size
    if chip.memory_gb and size and cell.cards < cards_for(size.weights_gb, chip.memory_gb):
        cards = f"{cell.cards} cards of {chip.memory_gb} GB"
        yield f"{size.weights_gb:g} GB of weights are much for {cards}"
    if size and (dtype := cast_to(chip, cell.model, cell.serve_arguments(chip.released))):
        yield f"its weights are {size.dtype} and served as {dtype}"
    for stack in cell.stacks:
        compiler = chip.stacks[stack].compiler
        if compiler and chip.compilers[compiler].reported != "pass":
            found = chip.compilers[compiler]
            yield f"{found.title}, which compiles {stack}, is reported as {found.reported}"
    for name, why in chip.unknown.items():
        stated = name == "memory_gb" and size is not None and size.cards
        placed = "; on as many cards as its makers or FlagRelease serve it on" if stated else ""
        yield f"{name} is not known ({why}){placed}"
    if chip.untested:
        yield chip.untested
