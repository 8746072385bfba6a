"""How many cards a model takes on a chip, and what that means for the server and for `docker run`. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.chip import Chip, Run, Visible
from pipeline.matrix_values import ServeValue
from pipeline.model import Model

SERVED = 0.9  # share of a card's memory that the server takes: vLLM's default
FOR_WEIGHTS = 0.9  # of that; the rest is key-value cache and activations
# Where a chip's are not known: the cards and nodes that makers of models give numbers for.
USUAL_MEMORY_GB, USUAL_CARDS_PER_NODE = 80, 8


def cards_for(weights_gb: float, memory_gb: float) -> int:
    """The smallest power of two of cards that hold so many gigabytes of weights.

    Source: it gives every statement that makers of models make about cards of 80 GB (facts/models.yaml, min_80gb_rule).
    """
    least = weights_gb / (memory_gb * SERVED * FOR_WEIGHTS)
    return 1 if least <= 1 else int(2 ** math.ceil(math.log2(least)))


def placement(chip: Chip, model: Model) -> dict[str, ServeValue]:
    """Arguments of vLLM: tensors are split inside a node, layers between nodes. None where one card is enough."""
    if model.size is None or chip.smi is None:
        return {}
    cards = cards_for(model.size.weights_gb, chip.memory_gb or USUAL_MEMORY_GB)
    inside = min(cards, chip.cards_per_node or USUAL_CARDS_PER_NODE)
    arguments: dict[str, ServeValue] = {}
    if cards > 1:
        arguments["tensor_parallel_size"] = inside
    if cards > inside:
        arguments["pipeline_parallel_size"] = cards // inside
    return arguments


def cards_of(arguments: Mapping[str, ServeValue]) -> int:
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
    return math.prod(int(str(arguments.get(name, 1))) for name in sizes)


def for_cards(run: Run, visible: Visible, cards: int) -> Run:
    """`{i}` repeated for the first so many cards of a node, `{cards}` as the list of them."""
    listed = ",".join(map(str, range(cards)))
    chosen = {visible.container: listed} if visible.container else {}
    return run.model_copy(
        update={
            "devices": _repeated(run.devices, cards),
            "volumes": _repeated(run.volumes, cards),
            "environment": {
                **chosen,
                **{
                    name: value.replace("{cards}", listed)
                    for name, value in run.environment.items()
                },
            },
        }
    )


def _repeated(values: list[str], cards: int) -> list[str]:
    return [
        value.replace("{i}", str(index))
        for value in values
        for index in range(cards if "{i}" in value else 1)
    ]
