"""How many cards a model takes on a chip, and what that means for the server and for `docker run`. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from pipeline.chip import Chip, Run, Visible
from pipeline.matrix_values import ServeValue
from pipeline.model import Model

SERVED = 0.9  # share of a card's memory that the server takes: vLLM's default
FOR_WEIGHTS = 0.9  # of that; the rest is key-value cache and activations
SIZES = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def cards_for(weights_gb: float, memory_gb: float) -> int:
    """The smallest power of two of cards that hold so many gigabytes of weights.

    Source: it gives every statement that makers of models make about cards of 80 GB (facts/models.yaml, min_80gb_rule).
    """
    least = weights_gb / (memory_gb * SERVED * FOR_WEIGHTS)
    return 1 if least <= 1 else int(2 ** math.ceil(math.log2(least)))


def placement(chip: Chip, model: Model) -> dict[str, ServeValue]:
    """Arguments of vLLM, by the chip's memory, else as the model's makers state it. None where one card is enough."""
    if model.size is None or chip.smi is None:
        return {}
    stated = model.size.cards or 1
    cards = cards_for(model.size.weights_gb, chip.memory_gb) if chip.memory_gb else stated
    return {"tensor_parallel_size": cards} if cards > 1 else {}


def cards_of(arguments: Mapping[str, ServeValue]) -> int:
    return math.prod(int(str(arguments.get(name, 1))) for name in SIZES)


def not_served(chip: Chip, model: Model) -> bool:
    """Whether no source says that the chip serves weights of this type as they are."""
    return bool(model.size and chip.dtypes and model.size.dtype not in chip.dtypes)


def cast_to(chip: Chip, model: Model, arguments: Mapping[str, ServeValue]) -> str:
    """The type that vLLM turns weights into that the chip does not serve; quantised weights are never turned."""
    if model.size is None or model.size.dtype == "fp8" or not not_served(chip, model):
        return ""
    return str(arguments.get("dtype", ""))


def obstacles(chip: Chip, model: Model, arguments: Mapping[str, ServeValue]) -> Iterator[str]:
    """Why no node of the chip serves the model with these arguments; what nobody knows is an obstacle, too."""
    size = model.size
    if size is None or chip.smi is None:
        return
    weights, cards = f"{size.weights_gb:g} GB of {size.dtype} weights", cards_of(arguments)
    if not chip.vllm:
        yield f"no vllm is pinned ({chip.unknown.get('packages', 'no value is given')})"
    if not_served(chip, model) and not cast_to(chip, model, arguments):
        yield f"no source says that the chip serves {size.dtype}"
    if not (chip.memory_gb or size.cards or any(name in arguments for name in SIZES)):
        why = chip.unknown.get("memory_gb", "no value is given")
        yield f"memory_gb is not known ({why}): nobody can say over how many cards {weights} are split"
    elif cards > 1 and chip.cards_per_node is None:
        why = chip.unknown.get("cards_per_node", "no value is given")
        yield f"takes {cards} cards, and cards_per_node is not known ({why})"
    elif chip.cards_per_node and cards > chip.cards_per_node:
        nodes = math.ceil(cards / chip.cards_per_node)
        yield f"{weights} take {cards} cards, {nodes} nodes: serving over several nodes is not built"
    elif chip.memory_gb and size.weights_gb > cards * chip.memory_gb:
        yield f"{weights} do not fit into {cards} cards of {chip.memory_gb} GB"


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
