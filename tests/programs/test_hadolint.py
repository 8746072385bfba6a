"""Hadolint over the Dockerfiles: those that are committed, and that of a chip that is added by data alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.cells import select
from pipeline.stages.render import render_all
from tests.new_chip import grown
from tests.projects import ROOT


def found(*words: str | Path, dockerfile: str | None = None) -> tuple[str, int]:
    """What it says, and its exit code."""
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), "--no-color", *words],
        input=dockerfile,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr, done.returncode


def test_it_finds_nothing_in_any_committed_dockerfile() -> None:
    settings = ROOT / ".hadolint.yaml"
    words = ["--config", str(settings)] if settings.exists() else []
    assert found(*words, *ROOT.glob("images/**/Dockerfile")) == ("", 0)


def test_it_finds_nothing_in_that_of_a_new_chip(tmp_path: Path) -> None:
    project = grown(tmp_path)
    files = render_all(select(project.matrix, ["acme", "atlas-70b"]), project.templates)
    dockerfile = files["images/acme/Dockerfile"].decode()
    assert found("--config", ROOT / ".hadolint.yaml", "-", dockerfile=dockerfile) == ("", 0)
