"""What nobody knows of a cell yet, from the matrix alone: why it is `untested`, beside that nobody ran it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.cell import Cell
from pipeline.placement import USUAL_CARDS_PER_NODE, USUAL_MEMORY_GB, cards_for

USUAL = {
    "memory_gb": f"reckoned with {USUAL_MEMORY_GB} GB a card",
    "cards_per_node": f"reckoned with {USUAL_CARDS_PER_NODE} cards a node",
}


def doubts(cell: Cell) -> tuple[str, ...]:
    return tuple(_doubts(cell))


def _doubts(cell: Cell) -> Iterator[str]:
    chip, size = cell.chip, cell.model.size
    if cell.nodes > 1:
        yield f"takes {cell.cards} cards on {cell.nodes} nodes, and a release serves on one"
    memory_gb = chip.memory_gb or USUAL_MEMORY_GB
    if chip.smi and size and cell.cards < cards_for(size.weights_gb, memory_gb):
        yield f"{size.weights_gb:g} GB of weights are much for {cell.cards} cards of {memory_gb} GB"
    if size is not None and chip.dtypes and size.dtype not in chip.dtypes:
        served = cell.serve_arguments(chip.released).get("dtype")
        yield (
            f"its weights are {size.dtype} and served as {served}"
            if served and size.dtype != "fp8"
            else f"its weights are {size.dtype}, and no source says that the chip serves them"
        )
    for stack in cell.stacks:
        compiler = chip.stacks[stack].compiler
        if compiler and chip.compilers[compiler].reported != "pass":
            found = chip.compilers[compiler]
            yield f"{found.title}, which compiles {stack}, is reported as {found.reported}"
    for name, why in chip.unknown.items():
        usual = f"; {USUAL[name]}" if name in USUAL else ""
        yield f"{name} is not known ({why}){usual}"
    if chip.untested:
        yield chip.untested
