"""A checkout has the bytes of the commit, where git turns line ends too: keys, records and cards are made of bytes."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.projects import ROOT

CARDS = ("records/imported/nvidia/step3/card.en.md", "templates/card.en.md.j2", "matrix.yaml")


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.test", "-c", "core.autocrlf=true")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, timeout=60)


def test_a_git_that_turns_line_ends_leaves_records_templates_and_matrix_alone(
    tmp_path: Path,
) -> None:
    for name in (".gitattributes", *CARDS):
        path = tmp_path / "one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((ROOT / name).read_bytes())
    git(tmp_path / "one", "init", "--quiet")
    git(tmp_path / "one", "add", "--all")
    git(tmp_path / "one", "commit", "--quiet", "--message", "all")
    git(tmp_path, "clone", "--quiet", "one", "two")
    for name in CARDS:
        assert (tmp_path / "two" / name).read_bytes() == (ROOT / name).read_bytes(), name
