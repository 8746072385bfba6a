"""A patch for matrix.yaml that excludes operators from one cell. Text is inserted; every comment stays.

The file is not written out anew: YAML libraries drop comments and reflow lines. The result is read back, and must say
what the old file said and the exclusions, nothing else.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from pipeline.chip import Exclusion
from pipeline.errors import PipelineError

STEP = "  "
_PLAIN = re.compile(r"^[A-Za-z_][A-Za-z0-9_./-]*$")
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def exclusion_patch(
    text: str, cell: str, exclusions: Mapping[str, Exclusion], *, path: str = "matrix.yaml"
) -> str:
    """A unified diff that `git apply` takes; "" when the cell excludes all of them already."""
    return unified_diff(text, with_exclusions(text, cell, exclusions), path)


def with_exclusions(text: str, cell: str, exclusions: Mapping[str, Exclusion]) -> str:
    """The file with `cells.overrides.<cell>.operators.exclude` widened. Operators that are there keep their reason.

    Raises PipelineError when the text has a form that nothing can be inserted into safely.
    """
    path = ("cells", "overrides", cell, "operators", "exclude")
    old = yaml.safe_load(text) or {}
    there = _at(old, path) or {}
    added = {name: found.model_dump() for name, found in exclusions.items() if name not in there}
    if not added:
        return text
    new = _inserted(text, path, added)
    try:
        read_back = yaml.safe_load(new)
    except yaml.YAMLError:
        read_back = None
    if read_back != _merged(old, path, added):
        raise PipelineError(
            "the exclusions cannot be inserted into the file as it is written",
            where=".".join(path),
            details=_block(path, added, ""),
            hint="add these lines by hand",
        )
    return new


def unified_diff(old: str, new: str, path: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _inserted(text: str, path: tuple[str, ...], added: Mapping[str, Any]) -> str:
    """Insert at the deepest mapping of the path that is in the file and holds something."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        return text + _block(path, added, "")
    for depth, key in enumerate(path):
        pair = next((pair for pair in node.value if pair[0].value == key), None)
        if pair is None:
            return _appended(text, node, path[depth:], added)
        name, value = pair
        if not isinstance(value, yaml.MappingNode) or not value.value:
            rest = path[depth + 1 :]
            if node.flow_style:
                return _replaced(text, value, _flow(_nested(rest, added)))
            return _below(text, name, value, rest, added)
        node = value
    return _appended(text, node, (), added)


def _appended(
    text: str, node: yaml.MappingNode, path: tuple[str, ...], added: Mapping[str, Any]
) -> str:
    """After the last value of a mapping that is not empty."""
    last = node.value[-1][1]
    if node.flow_style:
        end = last.end_mark.index
        return f"{text[:end]}, {_flow(_nested(path, added))[1:-1]}{text[end:]}"
    indent = " " * node.value[0][0].start_mark.column
    return _after_line(text, _last_line(text, node), _block(path, added, indent))


def _below(
    text: str, name: yaml.Node, value: yaml.Node, path: tuple[str, ...], added: Mapping[str, Any]
) -> str:
    """Under a key of a block that has no value or an empty one; what follows it on its line stays."""
    line = name.end_mark.line
    indent = " " * name.start_mark.column + STEP
    if value.end_mark.index > value.start_mark.index:
        before, after = text[: value.start_mark.index], text[value.end_mark.index :]
        ends_here = after[:1] in ("", "\n", "\r")
        text = (before.rstrip(" ") if ends_here else before) + after
    return _after_line(text, line, _block(path, added, indent))


def _replaced(text: str, value: yaml.Node, new: str) -> str:
    return text[: value.start_mark.index] + new + text[value.end_mark.index :]


def _after_line(text: str, line: int, block: str) -> str:
    lines = text.splitlines(keepends=True)
    if not lines[line].endswith("\n"):
        lines[line] += "\n"
        block = block.removesuffix("\n")
    return "".join([*lines[: line + 1], block, *lines[line + 1 :]])


def _last_line(text: str, node: yaml.Node) -> int:
    """The last line that a block's content stands on; marks of blocks point past comments and blank lines."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        key, value = last if isinstance(last, tuple) else (last, last)
        is_empty = value.start_mark.index == value.end_mark.index
        return int(key.end_mark.line) if is_empty else _last_line(text, value)
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        lines = text.splitlines()
        line = min(node.end_mark.line, len(lines)) - 1
        while not lines[line].strip() or lines[line].lstrip().startswith("#"):
            line -= 1
        return int(line)
    return int(node.end_mark.line)


def _block(path: tuple[str, ...], added: Mapping[str, Any], indent: str) -> str:
    """Nested keys, then an operator a line."""
    keys = [f"{indent}{STEP * depth}{_word(key)}:\n" for depth, key in enumerate(path)]
    inner = indent + STEP * len(path)
    return "".join([*keys, *(f"{inner}{_word(name)}: {_flow(v)}\n" for name, v in added.items())])


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_word(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _word(key: str) -> str:
    return key if _PLAIN.match(key) and key.lower() not in _NOT_TEXT else json.dumps(key)


def _nested(path: tuple[str, ...], value: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _merged(old: Any, path: tuple[str, ...], added: Mapping[str, Any]) -> Any:
    """What the changed file must say. Copies on the way down: an anchor may share a mapping."""
    here = dict(old or {})
    if not path:
        return {**here, **added}
    return {**here, path[0]: _merged(here.get(path[0]), path[1:], added)}
