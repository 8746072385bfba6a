"""What the images base → runtime → model of a cell are made of: their contexts and labels. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.canonical import sha256_bytes
from pipeline.cell import Cell
from pipeline.errors import StageRefusedError
from pipeline.lock import Lock, base_reference, requirement_inputs
from pipeline.parts import model_parts, runtime_parts

Layer = Literal["base", "runtime", "model"]


def refuse_unlocked(cell: Cell, lock: Lock) -> None:
    """A pin that is missing, null or older than the matrix."""
    where, hint = (
        f"build of {cell.id}",
        "run nox -s lock where the missing source can be reached, and commit",
    )
    requirements = lock.requirements.get(cell.chip_id)
    if requirements is None or requirements.sha256 is None:
        why = requirements.why if requirements else "never locked"
        raise StageRefusedError(
            f"the requirements of {cell.chip_id} are not locked: {why}", where=where, hint=hint
        )
    if requirements.inputs_sha256 != requirement_inputs(cell.chip):
        raise StageRefusedError(
            f"the packages of {cell.chip_id} in matrix.yaml changed after they were locked",
            where=where,
            hint=hint,
        )
    pin = lock.bases.get(cell.chip_id)
    if cell.chip.base.image is not None and (pin is None or pin.digest is None):
        why = (pin.why if pin else None) or "never locked"
        raise StageRefusedError(
            f"the base {cell.chip.base.image} has no digest: {why}", where=where, hint=hint
        )
    if pin is not None and pin.reference != base_reference(cell.chip.base):
        raise StageRefusedError(
            f"the base {base_reference(cell.chip.base)} has no digest: {pin.reference} was locked",
            where=where,
            hint=hint,
        )


def refuse_edited_lock(cell: Cell, lock: Lock, files: Mapping[str, bytes]) -> None:
    """A requirement lock that `nox -s lock` did not write."""
    name, pin = f"images/{cell.chip_id}/requirements.lock", lock.requirements.get(cell.chip_id)
    if pin is not None and pin.sha256 not in (None, sha256_bytes(files.get(name, b""))):
        raise StageRefusedError(
            "the file is not the one that was locked",
            where=name,
            hint="run nox -s lock, or git checkout the file",
        )


def labels(cell: Cell, layer: Layer, key: str, *, revision: str, created: str) -> dict[str, str]:
    """OCI labels of every layer, with our key and cell."""
    prefix = "org.opencontainers.image"
    what = {"base": "base", "runtime": "serving runtime", "model": cell.model.title}[layer]
    engine = next((v for name, v in cell.chip.packages.items() if name.startswith("vllm")), "")
    return {
        f"{prefix}.title": f"FlagOS {what} for {cell.chip.title.en}",
        f"{prefix}.vendor": cell.project.vendor,
        f"{prefix}.version": engine,
        f"{prefix}.revision": revision,
        f"{prefix}.source": cell.project.source,
        f"{prefix}.created": created,
        f"{prefix}.licenses": "Apache-2.0",
        "io.flagos.release.key": key,
        "io.flagos.release.cell": cell.id if layer == "model" else cell.chip_id,
    }


def runtime_context(cell: Cell, files: Mapping[str, bytes]) -> dict[str, bytes | Path]:
    folder = f"images/{cell.chip_id}/"
    return {
        path.removeprefix(folder).removeprefix("images/"): files[path]
        for path in runtime_parts(cell, files)
    }


def model_context(cell: Cell, files: Mapping[str, bytes]) -> dict[str, bytes | Path]:
    folder = f"images/{cell.id}/"
    return {path.removeprefix(folder): files[path] for path in model_parts(cell, files)}
