"""What the images base → runtime → model of a cell are made of: pins, the parts of their keys, contexts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.canonical import sha256_bytes
from pipeline.cell import Cell
from pipeline.errors import StageRefusedError
from pipeline.lock import Lock, base_reference, lock_files, requirement_inputs
from pipeline.world.debian import bootstrap_arguments


def refuse_unlocked(cell: Cell, lock: Lock) -> None:
    """A pin that is missing, null or older than the matrix."""
    where, hint = (
        f"build of {cell.id}",
        "run nox -s lock where the missing source can be reached, and commit",
    )
    for name in lock_files(cell.chip_id, cell.chip):
        requirements = lock.requirements.get(name)
        if requirements is None or requirements.sha256 is None:
            why = requirements.why if requirements else "never locked"
            raise StageRefusedError(
                f"the requirements of {name} are not locked: {why}", where=where, hint=hint
            )
        if requirements.inputs_sha256 != requirement_inputs(cell.chip, name.partition("/")[2]):
            raise StageRefusedError(
                f"the packages of {name} in matrix.yaml changed after they were locked",
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
    for name, path in lock_files(cell.chip_id, cell.chip).items():
        pin = lock.requirements.get(name)
        if pin is not None and pin.sha256 not in (None, sha256_bytes(files.get(path, b""))):
            raise StageRefusedError(
                "the file is not the one that was locked",
                where=path,
                hint="run nox -s lock, or git checkout the file",
            )


def base_parts(cell: Cell, lock: Lock) -> dict[str, str]:
    if cell.chip.base.node is not None:
        return {"base node": cell.chip.base.node}
    if cell.chip.base.image is None:
        return {"base recipe": " ".join(bootstrap_arguments(cell.chip.base, cell.chip.arch))}
    pin = lock.bases.get(cell.chip_id)
    return {"base image": (pin.digest if pin else None) or "(not locked)"}


def runtime_parts(cell: Cell, files: Mapping[str, bytes]) -> dict[str, str]:
    folder = f"images/{cell.chip_id}/"
    mine = (f"{folder}Dockerfile", f"{folder}requirements.lock")
    more = (f"{folder}aliases/", f"{folder}compilers/", "images/serving/")
    return {
        path: sha256_bytes(content)
        for path, content in sorted(files.items())
        if path in mine or path.startswith(more)
    }


def model_parts(cell: Cell, files: Mapping[str, bytes]) -> dict[str, str]:
    folder = f"images/{cell.id}/"
    return {
        path: sha256_bytes(content)
        for path, content in sorted(files.items())
        if path.startswith(folder)
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
