"""The commands of README and docs that need no engine, run as printed: a fresh checkout for each page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.world.block_syntax import syntax_faults
from tests.documents import RELEASE as OF_PAGES
from tests.documents import Page, commit_all, pages, run_step
from tests.projects import ROOT

RELEASE = "2026.11.24.101"
MEASURED = (
    f"{RELEASE}/cpu/smollm2/record.json"  # committed; pages that bring records back bring this one
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("clone")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    commit_all(folder)
    return folder


@pytest.mark.parametrize(
    "one", [one for one in pages() if one.steps("checkout")], ids=lambda one: one.name
)
def test_the_commands_of_a_page_run_in_a_fresh_checkout(
    one: Page, clone: Path, tmp_path: Path
) -> None:
    root = tmp_path / "checkout"
    shutil.copytree(clone, root)
    if any("pack out/back" in block.text for block in one.commands):
        came_back(root)
    for block in one.steps("checkout"):
        run_step(block, root, {OF_PAGES: RELEASE}, {"FLAGRELEASE_STATE": str(tmp_path / "state")})
    assert (root / "records" / MEASURED).exists()


def came_back(root: Path) -> None:
    """A release lies in out/ alone, as a node or an artifact of GitHub left it."""
    (root / "out").mkdir()
    shutil.move(root / "records" / RELEASE, root / "out" / RELEASE)
    commit_all(root)


@pytest.mark.parametrize("one", pages(), ids=lambda one: one.name)
def test_the_syntax_of_every_block_of_commands_is_sound(one: Page) -> None:
    assert syntax_faults(one.commands) == ()
