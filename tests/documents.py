"""The blocks of README.md and docs/*.md: each is run somewhere, or says what is missing to run it.

A block of commands begins with one of two comments, or with none:

    (none)                                 run in a fresh checkout without an engine (tests/programs)
    # Needs an engine and a registry.      run in a checkout where cpu/smollm2 was released (tests/integration)
    # Not run by the tests: needs …        only looked at: syntax, sessions, arguments (tests/unit, tests/programs)

A YAML block that begins with `# matrix.yaml, under KEY:` is put there before the commands that follow it.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.cards.blocks import Block, code_blocks
from tests.projects import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = {"bash", "text", "yaml", "json"}
WITH_ENGINE = "# Needs an engine and a registry."
NOT_RUN = "# Not run by the tests: needs "
RELEASE = "2026.11.24.1"  # the name of a release on all pages
_UNDER = re.compile(r"# matrix\.yaml, under (\w+):\n")
_OURS = re.compile(
    r"(?:^|[\s;|])(?:nox -s|node/start pipeline|node/over ssh://\S+) +(?P<words>[^|;&#\n]+)"
)

Where = Literal["checkout", "engine", "nowhere"]


@dataclass(frozen=True)
class Page:
    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def blocks(self) -> tuple[Block, ...]:
        return code_blocks(self.path.read_text("utf-8"))

    def steps(self, where: Where) -> tuple[Block, ...]:
        """Commands that are run there, and what is put into the matrix before them; empty without a command."""
        commands = [block for block in self.commands if where_of(block) == where]
        edits = [block for block in self.blocks if is_edit(block)] if commands else []
        return tuple(sorted([*commands, *edits], key=lambda block: block.line))

    @property
    def commands(self) -> list[Block]:
        return [block for block in self.blocks if block.language == "bash"]


def pages() -> tuple[Page, ...]:
    return tuple(Page(path) for path in PAGES)


def page(name: str) -> Page:
    return Page(ROOT / name)


def where_of(block: Block) -> Where:
    if block.text.startswith(WITH_ENGINE):
        return "engine"
    return "nowhere" if block.text.startswith(NOT_RUN) else "checkout"


def is_edit(block: Block) -> bool:
    return block.language == "yaml" and _UNDER.match(block.text) is not None


def edit_of(page_: Page) -> str:
    """What a page puts into the matrix."""
    (block,) = (block for block in page_.blocks if is_edit(block))
    return block.text.partition("\n")[2]


def with_edit(matrix: str, block: Block) -> str:
    found = _UNDER.match(block.text)
    assert found is not None
    key = f"\n{found[1]}:\n"
    assert matrix.count(key) == 1, f"matrix.yaml has no {found[1]}:"
    return matrix.replace(key, f"{key}{block.text[found.end() :]}\n")


def our_commands(text: str) -> Iterator[list[str]]:
    """Session and words of every command of ours in a block."""
    for found in _OURS.finditer(text.replace("\\\n", " ")):
        session, *words = shlex.split(found["words"])
        yield [session, *(word for word in words if word != "--")]


def run_step(
    block: Block, root: Path, replaced: Mapping[str, str], environment: Mapping[str, str]
) -> None:
    """Put a block into the matrix of a checkout, or run it there, with what stands for names of the page."""
    if is_edit(block):
        matrix = root / "matrix.yaml"
        matrix.write_text(with_edit(matrix.read_text("utf-8"), block), "utf-8")
        return
    text = block.text
    for old, new in replaced.items():
        text = text.replace(old, new)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", text],
        cwd=root,
        env={**os.environ, **environment, "PATH": path, "PYTHONPATH": str(root)},
        input="typed by a person\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"line {block.line}: {text}\n{done.stdout}"


def commit_all(root: Path) -> None:
    """Into a repository of its own, as a clone has."""
    for name, value in (("user.name", "A Reader"), ("user.email", "reader@example.test")):
        _git(root, "init", "-q")
        _git(root, "config", name, value)
    _git(root, "add", "-A")
    _git(root, "commit", "-qm", "before")


def _git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, stdout=subprocess.DEVNULL)
