"""Reads matrix.yaml and reports all its faults at once, each with file, line, column and id path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.matrix import Matrix, json_schema
from pipeline.matrix_mending import without_faults
from pipeline.matrix_names import Broken, broken_references, nearest
from pipeline.names import shared_hub_names
from pipeline.yaml_source import Fault, Path_, Source, read_yaml

_SERVE_VALUE = "a boolean, a number, a text, a list or a mapping"  # the one union of the matrix


def read_matrix(path: Path) -> Matrix:
    """Raises UsageError that lists every fault of the file."""
    source = read_yaml(path)
    faults = list(source.faults)
    sound: Matrix | None
    try:
        sound, left_out = Matrix.model_validate(source.data), frozenset[Path_]()
    except ValidationError as error:
        faults += _schema_faults(source, error)
        sound, left_out = without_faults(source.data)
    faults += [
        Fault(place=source.place_of(at), path=at, message=message, hint=hint)
        for at, message, hint in _broken(sound)
        if not _is_a_consequence(at, message, left_out)
    ]
    if faults or sound is None:
        faults.sort(key=lambda fault: fault.place)
        raise UsageError(
            f"{path.name} has {len(faults)} fault{'s' if len(faults) > 1 else ''}",
            details="\n".join(f"{path.name}:{fault}" for fault in faults),
            hint="docs/matrix.schema.json describes every key",
        )
    return sound


def _broken(matrix: Matrix | None) -> Iterator[Broken]:
    if matrix is not None:
        yield from broken_references(matrix)
        yield from shared_hub_names(matrix)


def _is_a_consequence(at: Path_, message: str, left_out: Iterable[Path_]) -> bool:
    """Whether a broken name is one only because a faulty value was taken out, there or below."""
    named = {name for quoted in _quoted(message) for name in quoted.split("/")}
    return any(path[-1] in named or path[: len(at)] == at for path in left_out)


def _schema_faults(source: Source, error: ValidationError) -> list[Fault]:
    """One fault a place: a value of no allowed type is told once, not once a type."""
    faults: dict[Path_, Fault] = {}
    for found in error.errors():
        path, kind = _path(found["loc"]), found["type"]
        is_in_file = path in source.places or kind in ("missing", "extra_forbidden")
        if is_in_file or not path:
            faults.setdefault(path, _fault(source, path, dict(found)))
            continue
        # pydantic adds the name of the type it tried; the value is what stands above it
        faults.setdefault(
            path[:-1],
            Fault(
                place=source.place_of(path),
                path=path[:-1],
                message=f"expected {_SERVE_VALUE}, got {_shown(found.get('input'))}",
            ),
        )
    return list(faults.values())


def _path(location: Iterable[str | int]) -> Path_:
    return tuple(part for part in location if part != "[key]")


def _fault(source: Source, path: Path_, found: dict[str, Any]) -> Fault:
    kind, value = found["type"], found.get("input")
    if kind == "extra_forbidden":
        message, hint = "unknown key", nearest(str(path[-1]), _keys_at(path[:-1]))
        return Fault(place=source.place_of(path), path=path, message=message, hint=hint)
    if kind == "missing":
        return Fault(place=source.place_of(path), path=path, message="this key is required")
    expected = "expected a mapping" if kind == "model_type" else found["msg"]
    expected = expected.replace("Input should be", "expected")
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
    schema = json_schema()
    node = schema
    for part in path:
        node = _resolved(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or _any_value(node)
    return list(_resolved(schema, node).get("properties", {}))


def _any_value(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of the values of a mapping whose keys are ids."""
    by_pattern = list(node.get("patternProperties", {}).values())
    value = by_pattern[0] if by_pattern else node.get("additionalProperties")
    return value if isinstance(value, dict) else {}


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    for option in [node, *node.get("anyOf", []), *node.get("allOf", [])]:
        if "$ref" in option:
            found: Mapping[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
            return found
    return node
