"""YAML with places: every value knows its line and column, and a key given twice is a fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UsageError

Path_ = tuple[str | int, ...]
Place = tuple[int, int]  # line and column, both from 1


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something wrong at one place of a file."""

    place: Place
    path: Path_
    message: str
    hint: str = ""

    def __str__(self) -> str:
        line, column = self.place
        named = ".".join(str(part) for part in self.path) or "(file)"
        hint = f" ({self.hint})" if self.hint else ""
        return f"{line}:{column}: {named}: {self.message}{hint}"


@dataclass(frozen=True, kw_only=True)
class Source:
    data: Any
    places: dict[Path_, Place]
    faults: list[Fault] = field(default_factory=list)

    def place_of(self, path: Path_) -> Place:
        """The place of a value, or of its nearest parent that is in the file."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, (1, 1))


def read_yaml(path: Path) -> Source:
    """Raises UsageError when the file is absent or is not YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}",
            where=str(path),
            hint="run the command from the project folder or name the file with --matrix",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"is not UTF-8: byte {error.start} cannot be read",
            where=str(path),
            hint="save the file as UTF-8",
        ) from error
    loader = yaml.CSafeLoader(text)
    try:
        node = loader.get_single_node()
        places: dict[Path_, Place] = {}
        faults: list[Fault] = []
        data = _value(loader, node, (), places, faults) if node else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise UsageError(
            f"is not YAML: {getattr(error, 'problem', None) or error}",
            where=where,
            hint="check indentation, brackets and quotes at this place",
        ) from error
    except (TypeError, RecursionError) as error:
        raise UsageError(
            f"holds what no matrix can hold: {error}",
            where=str(path),
            hint="keys are plain words, and no anchor contains itself",
        ) from error
    finally:
        loader.dispose()
    return Source(data=data, places=places, faults=faults)


def _value(
    loader: yaml.CSafeLoader,
    node: yaml.Node,
    path: Path_,
    places: dict[Path_, Place],
    faults: list[Fault],
) -> Any:
    places[path] = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, child, (*path, index), places, faults)
            for index, child in enumerate(node.value)
        ]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        place = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
        if key in found:
            faults.append(
                Fault(
                    place=place,
                    path=(*path, key),
                    message="this key is given twice",
                    hint="keep one; YAML would silently take the last",
                )
            )
        found[key] = _value(loader, value_node, (*path, key), places, faults)
    return found
