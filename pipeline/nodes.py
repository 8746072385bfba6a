"""A chip as it is on a node without network: the node's own Python environment goes under its images. Pure."""

from __future__ import annotations

from typing import TypeVar

from pipeline.chip import Base, Chip, Node
from pipeline.errors import UsageError
from pipeline.lock import BasePin, Lock, RequirementsPin
from pipeline.matrix import Matrix
from pipeline.matrix_names import nearest

P = TypeVar("P", RequirementsPin, BasePin)
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FAMILY = "node"  # templates/runtime.node.Dockerfile.j2


def node_of(matrix: Matrix, chip_id: str, name: str | None) -> str:
    """The node that is named, or the only one that has this chip. Raises UsageError."""
    known = [node_id for node_id, node in matrix.nodes.items() if node.chip == chip_id]
    if name is None and len(known) == 1:
        return known[0]
    if name in known:
        return name
    raise UsageError(
        f"no node with the chip {chip_id} is called {name}"
        if name
        else f"{len(known)} nodes have the chip {chip_id}",
        where="matrix.yaml: nodes",
        hint=nearest(name, known)
        if name
        else f"add --node with one of: {', '.join(known)}"
        if known
        else "docs/air-gapped.md says how to add one",
    )


def on_node(matrix: Matrix, name: str, *, published: bool = False) -> Matrix:
    """The matrix with the chip of this node as the node has it; every other chip is left alone.

    With the published image, which was carried whole, only the arguments of `docker run` are the node's.
    """
    if name not in matrix.nodes:
        raise UsageError(f"no node is called {name}", hint=nearest(name, matrix.nodes))
    node = matrix.nodes[name]
    chip = matrix.chips[node.chip]
    chip = _run_on(chip, node) if published else _run_on(_built_on(chip, node, name), node)
    return matrix.model_copy(update={"chips": {**matrix.chips, node.chip: chip}})


def lock_on_node(lock: Lock, matrix: Matrix, name: str) -> Lock:
    """The lock with the pins of this node in the place of its chip's."""
    chip = matrix.nodes[name].chip
    own = {chip: lock.nodes[name]} if name in lock.nodes else {}
    return lock.model_copy(
        update={
            "requirements": {**_without(lock.requirements, chip), **own},
            "bases": _without(lock.bases, chip),
        }
    )


def _without(pins: dict[str, P], chip: str) -> dict[str, P]:
    return {name: pin for name, pin in pins.items() if name != chip}


def _run_on(chip: Chip, node: Node) -> Chip:
    """Containers find the chip's tools where the node has them."""
    path = ":".join([f"{chip.venv}/bin", *node.paths, SYSTEM_PATH])
    environment = {**node.run.environment, "PATH": path} if node.paths else node.run.environment
    run = node.run.model_copy(update={"environment": environment})
    return chip.model_copy(update={"run": run})


def _built_on(chip: Chip, node: Node, name: str) -> Chip:
    there = dict.fromkeys(node.provides, "on the node already")
    return chip.model_copy(
        update={
            "base": Base(node=name),
            "family": FAMILY,
            "python": node.python,
            "venv": node.venv,
            "glibc": node.glibc,
            "system_packages": [],
            "strip": [],
            "remove": [*chip.remove, *node.remove],
            "leave_out": {**chip.leave_out, **there},
            "overrides": {n: text for n, text in chip.overrides.items() if n not in there},
        }
    )
