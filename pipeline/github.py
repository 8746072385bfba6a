"""What GitHub Actions reads of a command: outputs, a summary of the job, and annotations. Elsewhere nothing is written.

Formats: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.errors import PipelineError

_LOCATED = re.compile(
    r"^\s*(?P<file>[\w./+-]+\.\w+):(?P<line>\d+):(?:(?P<column>\d+):)? (?P<text>.+)$"
)


def is_there() -> bool:
    return os.environ.get("GITHUB_ACTIONS") == "true"


def set_output(name: str, value: str) -> None:
    """For later jobs: `needs.<job>.outputs.<name>`. One line, for the file has a line a name."""
    _append("GITHUB_OUTPUT", f"{name}={value}\n")


def add_to_summary(text: str) -> None:
    """Markdown below what the job's summary says so far."""
    _append("GITHUB_STEP_SUMMARY", text + "\n\n")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return (
            f"| {' | '.join(cell.replace('|', '&#124;').replace(chr(10), ' ') for cell in cells)} |"
        )

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def annotated(error: PipelineError) -> Iterator[str]:
    """A workflow command for each line of the error that names a place in a file, or one for all of it."""
    lines = [found for found in map(_LOCATED.match, str(error).splitlines()) if found]
    for found in lines:
        places = {name: found[name] for name in ("file", "line", "column") if found[name]}
        where = ",".join(
            f"{name.replace('column', 'col')}={_property(v)}" for name, v in places.items()
        )
        yield f"::error {where}::{_data(found['text'])}"
    if not lines:
        title = f" title={_property(error.where)}" if error.where else ""
        yield f"::error{title}::{_data(str(error))}"


def _append(variable: str, text: str) -> None:
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
