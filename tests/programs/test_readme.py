"""What the README tells somebody who adds a model or a chip works as printed, on a copy of the project."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects import ROOT

README = (ROOT / "README.md").read_text("utf-8")
COPIED = ("matrix.yaml", "matrix.lock", "images", "templates", "docs", "records", "node")


def commands_of(section: str) -> Iterator[list[str]]:
    """The words behind `nox -s` of every indented command of a section."""
    text = README.partition(f"## {section}\n")[2].partition("\n## ")[0]
    for line in re.findall(r"^    nox -s (.+)$", text, flags=re.MULTILINE):
        session, *words = shlex.split(line, comments=True)
        yield [session, *(word for word in words if word != "--")]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return folder


def test_a_model_is_added_with_the_commands_of_the_readme(copy: Path) -> None:
    commands = list(commands_of("Add a model"))
    assert [command[0] for command in commands] == ["lock", "render", "page", "plan"]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *command],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    cells = set(re.findall(r"^(\S+/qwen3-4b) ", done.stdout, flags=re.MULTILINE))
    assert {"cpu/qwen3-4b", "metax/qwen3-4b"} <= cells


def test_the_example_chip_of_the_readme_is_complete() -> None:
    """Every key that the table of the README names is one that its example has, or that only other chips need."""
    text = README.partition("## Add a chip\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"`(\w+)` is a complete example", text)
    block = (
        (ROOT / "matrix.yaml")
        .read_text("utf-8")
        .partition(f"\n  {example}:\n")[2]
        .partition("\n\n  ")[0]
    )
    given = set(re.findall(r"^    (\w+):", block, flags=re.MULTILINE))
    table = "\n".join(line for line in text.splitlines() if line.startswith("| "))
    named = {word for word in re.findall(r"`(\w+)`", table) if word not in ("compiler",)}
    assert named - given == {"overrides", "skipped_operators", "unknown"}
