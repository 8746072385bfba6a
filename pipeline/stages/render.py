"""render: a cell of the matrix as files. Pure: text in, text out; `write` and `drift` are the only edges."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jinja2
import yaml

from pipeline.cell import Cell
from pipeline.errors import UsageError
from pipeline.matrix import ServeValue, json_schema
from pipeline.record import write_whole

BANNER = "Rendered by `nox -s render` from matrix.yaml and {}; change those, not this file."
SCHEMA_FILE = "docs/matrix.schema.json"


class Templates:
    """The templates of a folder; a variable that is not defined is an error that names template and line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(folder),
            undefined=jinja2.StrictUndefined,
            keep_trailing_newline=True,
            autoescape=False,  # noqa: S701 -- Dockerfiles and YAML, not HTML
        )
        self._environment.filters["yaml"] = _yaml_scalar

    def render(self, template_name: str, /, **context: object) -> bytes:
        try:
            template = self._environment.get_template(template_name)
            text = template.render(banner=BANNER.format(f"templates/{template_name}"), **context)
        except jinja2.TemplateNotFound as error:
            raise UsageError(
                f"there is no template {error.name}",
                where=str(self.folder),
                hint="a chip's `family` names its runtime template",
            ) from error
        except jinja2.TemplateSyntaxError as error:
            raise UsageError(
                f"template error: {error.message}", where=f"{error.filename}:{error.lineno}"
            ) from error
        except jinja2.UndefinedError as error:
            raise UsageError(
                f"template variable: {error.message}",
                where=f"{self.folder.name}/{template_name}",
                hint="give it in matrix.yaml or take it out of the template",
            ) from error
        return text.encode()


def render_chip(cell: Cell, templates: Templates) -> dict[str, bytes]:
    """The runtime image of a chip."""
    chip, folder = cell.chip, f"images/{cell.chip_id}"
    files = {
        f"{folder}/Dockerfile": templates.render(
            f"runtime.{chip.family}.Dockerfile.j2", chip=chip, site_packages=site_packages(cell)
        )
    }
    for name, version in chip.aliases.items():
        files[f"{folder}/aliases/{name}.METADATA"] = templates.render(
            "alias.METADATA.j2", name=name, version=version
        )
    return files


def render_model(cell: Cell, templates: Templates) -> dict[str, bytes]:
    """The thin model layer of a cell: one FlagScale experiment and task per stack, the released one by its plain name."""
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
            "model.Dockerfile.j2", conf_folder=conf_folder(cell), **shared
        )
    }
    for stack in cell.stacks:
        files[f"{folder}/conf/{experiment_file(cell, stack)}"] = templates.render(
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


def site_packages(cell: Cell) -> str:
    return f"/opt/venv/lib/python{cell.chip.python}/site-packages"


def conf_folder(cell: Cell) -> str:
    """Where `flagscale serve <model>` looks for a model's experiment."""
    return f"{site_packages(cell)}/flag_scale/examples/{cell.model_id}/conf"


def experiment_file(cell: Cell, stack: str) -> str:
    return "serve.yaml" if stack == cell.chip.released else f"serve.{stack}.yaml"


def serve_command(cell: Cell, stack: str) -> list[str]:
    """What starts a stack inside the container. The released one needs no argument."""
    command = ["flagscale", "serve", cell.model_id]
    if stack != cell.chip.released:
        command.append(f"{conf_folder(cell)}/{experiment_file(cell, stack)}")
    return command


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


def _yaml_scalar(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


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
            if name not in files and not name.startswith(kept) and not name.endswith("/requirements.lock")
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
            committed.decode(errors="replace").splitlines(keepends=True),
            fresh.decode().splitlines(keepends=True),
            fromfile=f"committed/{path}",
            tofile=f"rendered/{path}",
        )
    )
