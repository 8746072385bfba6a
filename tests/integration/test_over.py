"""node/over: a stage on another machine, reached over SSH, with a real engine behind it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import (
    CELL,
    Checkout,
    copy_of_project,
    run_with_our_programs,
    take_over_environment,
)
from tests.ssh_server import ssh_server

pytestmark = pytest.mark.integration
RELEASE = "2026.11.24.77"


@pytest.fixture
def here(tmp_path: Path) -> Checkout:
    """A checkout that has built nothing; what is sent is what git knows of it."""
    checkout = copy_of_project(tmp_path / "here")
    for words in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all"],
    ):
        subprocess.run(["git", *words], cwd=checkout.root, check=True)
    take_over_environment(checkout.root)
    return checkout


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[str, Path, Path]]:
    """URL of the machine, the client's configuration, and the home of its user, with the environment already there."""
    keys, home = tmp_path / "keys", tmp_path / "home"
    keys.mkdir()
    home.mkdir()
    with ssh_server(keys, home) as (port, config):
        yield f"ssh://root@127.0.0.1:{port}", config, home


def over(here: Checkout, config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program, environment = str(here.root / "node/over"), {"SSH_CONFIG": str(config)}
    return run_with_our_programs([program, *words], here.root, environment, timeout_s=600)


def test_a_release_runs_on_the_other_machine_and_its_record_comes_back(
    here: Checkout, machine: tuple[str, Path, Path]
) -> None:
    url, config, home = machine
    (home / "lab").mkdir()
    (home / "lab/.flagrelease").touch()
    take_over_environment(home / "lab")
    (home / "lab/stale.py").touch()
    ran = over(here, config, f"{url}{home}/lab", "weights", *CELL, "--release", RELEASE)
    assert ran.returncode == 0, ran.stdout
    assert here.record().release == RELEASE
    stages = here.record().stages
    assert stages.build is not None
    assert stages.weights is not None
    assert (stages.build.status, stages.weights.status) == ("passed", "passed")
    assert (home / "lab/out/share" / CELL[1]).is_dir()
    assert not (here.root / "out/share" / CELL[1]).exists()
    assert not (home / "lab/stale.py").exists()


def test_what_fails_there_fails_here_with_its_code(
    here: Checkout, machine: tuple[str, Path, Path]
) -> None:
    url, config, home = machine
    (home / "flagrelease").mkdir()
    (home / "flagrelease/.flagrelease").touch()
    take_over_environment(home / "flagrelease")
    ran = over(here, config, url, "plan", "nvidia", "nobody")
    assert ran.returncode != 0
    assert "nobody" in ran.stdout


def test_a_folder_that_is_not_ours_is_left_alone(
    here: Checkout, machine: tuple[str, Path, Path]
) -> None:
    url, config, home = machine
    (home / "thesis").mkdir()
    (home / "thesis/chapter1.txt").write_text("years of work")
    ran = over(here, config, f"{url}{home}/thesis", "plan", *CELL)
    assert ran.returncode == 4
    assert "not empty and not ours" in ran.stdout
    assert (home / "thesis/chapter1.txt").read_text() == "years of work"


def test_a_machine_that_is_not_reached_is_said(
    here: Checkout, machine: tuple[str, Path, Path]
) -> None:
    _, config, _ = machine
    ran = over(here, config, "ssh://root@127.0.0.1:9", "plan", *CELL)
    assert ran.returncode == 4
    assert "is not reached" in ran.stdout
