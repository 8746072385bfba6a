"""render: a cell of the matrix as files. Pure: text in, text out; `write` and `drift` are the only edges."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pipeline.canonical import sha256_bytes, write_whole
from pipeline.cell import Cell
from pipeline.matrix import json_schema
from pipeline.matrix_values import ServeValue
from pipeline.results import FileHash, RenderResult
from pipeline.templates import Templates

SCHEMA_FILE = "docs/matrix.schema.json"


def render_chip(cell: Cell, templates: Templates) -> dict[str, bytes]:
    """The runtime image of a chip."""
    chip, folder = cell.chip, f"images/{cell.chip_id}"
    files = {
        f"{folder}/Dockerfile": templates.render(
            f"runtime.{chip.family}.Dockerfile.j2",
            chip=chip,
            site_packages=cell.site_packages,
            python_path=":".join(cell.python_path(chip.released)),
        )
    }
    for name, version in chip.aliases.items():
        files[f"{folder}/aliases/{name}.METADATA"] = templates.render(
            "alias.METADATA.j2", name=name, version=version
        )
    return files


def render_model(cell: Cell, templates: Templates) -> dict[str, bytes]:
    """The thin model layer of a cell: one FlagScale experiment and one task per stack."""
    folder = f"images/{cell.chip_id}/{cell.model_id}"
    shared = {
        "chip": cell.chip,
        "model": cell.model,
        "model_id": cell.model_id,
        "served_name": cell.served_name,
        "weights_path": cell.weights_path,
    }
    files = {
        f"{folder}/Dockerfile": templates.render(
            "model.Dockerfile.j2", conf_folder=cell.conf_folder, **shared
        )
    }
    for stack in cell.stacks:
        files[f"{folder}/conf/{cell.experiment_file(stack)}"] = templates.render(
            "serve.yaml.j2", stack=stack, environment=cell.environment(stack), **shared
        )
        files[f"{folder}/conf/serve/{stack}.yaml"] = templates.render(
            "task.yaml.j2", arguments=flagscale_arguments(cell.serve_arguments(stack)), **shared
        )
    return files


def render_all(cells: Iterable[Cell], templates: Templates) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for cell in cells:
        files |= render_chip(cell, templates)
        files |= render_model(cell, templates)
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    return {**files, SCHEMA_FILE: schema.encode()}


def render_result(files: Mapping[str, bytes]) -> RenderResult:
    return RenderResult(
        files=tuple(
            FileHash(path=path, sha256=sha256_bytes(content), size_bytes=len(content))
            for path, content in sorted(files.items())
        )
    )


def flagscale_arguments(arguments: Mapping[str, ServeValue]) -> dict[str, ServeValue]:
    """Arguments of vLLM in the only forms that FlagScale 0.8.0 passes on unharmed.

    It drops `false` (the `no_` form is needed) and prints lists and mappings as Python text (JSON text is needed).
    """
    passed: dict[str, ServeValue] = {}
    for name, value in arguments.items():
        if value is False:
            passed[f"no_{name}"] = True
        elif isinstance(value, list | dict):
            passed[name] = json.dumps(value)
        else:
            passed[name] = value
    return passed


def write(root: Path, files: Mapping[str, bytes], *, whole_matrix: bool) -> tuple[str, ...]:
    """Write what differs; with the whole matrix, also remove what no cell renders any more. Changed paths."""
    changed = []
    for path, content in files.items():
        target = root / path
        if not target.exists() or target.read_bytes() != content:
            write_whole(target, content)
            changed.append(path)
    for path in stale(root, files) if whole_matrix else ():
        (root / path).unlink()
        changed.append(path)
    return tuple(sorted(changed))


def stale(root: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Files under images/ that nothing renders: neither ours for the images, nor requirement locks."""
    found = (path for path in (root / "images").rglob("*") if path.is_file())
    names = (path.relative_to(root).as_posix() for path in found)
    kept = ("images/serving/",)
    return tuple(
        sorted(
            name
            for name in names
            if name not in files and not name.startswith(kept) and not name.endswith(".lock")
        )
    )


def drift(root: Path, files: Mapping[str, bytes], *, whole_matrix: bool) -> str:
    """A unified diff from the committed files to a fresh render; empty when they agree."""
    parts: list[str] = []
    for path, content in sorted(files.items()):
        target = root / path
        committed = target.read_bytes() if target.exists() else b""
        if committed != content:
            parts += _diff(path, committed, content)
    for path in stale(root, files) if whole_matrix else ():
        parts += _diff(path, (root / path).read_bytes(), b"")
    return "".join(parts)


def _diff(path: str, committed: bytes, fresh: bytes) -> Sequence[str]:
    return list(
        difflib.unified_diff(
            _lines(committed),
            _lines(fresh),
            fromfile=f"committed/{path}",
            tofile=f"rendered/{path}",
        )
    )


def _lines(content: bytes) -> list[str]:
    """Whole lines, so that a last line without an end does not run into the next one of a diff."""
    lines = content.decode(errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n\\ No newline at end of file\n"
    return lines
