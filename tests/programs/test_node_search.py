"""`node/search` with a `node/start` beside it that only says what it was asked: the order, and how it ends."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.projects import ROOT

# Ends with what `ends/<command>` holds, else well.
START = """#!/bin/bash
shift
echo "$*" >>"$CALLS"
exit "$(cat "$ENDS/$1" 2>/dev/null || echo 0)"
"""
CELL = "nvidia smollm2 --node h100"
SEARCH = f"bisect {CELL} --restart --parallel 4 --minutes"


class Visit:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copy(ROOT / "node/search", folder)
        (folder / "start").write_text(START)
        (folder / "start").chmod(0o755)
        (folder / "ends").mkdir()

    def make(self, **ends: int) -> subprocess.CompletedProcess[str]:
        for command, code in ends.items():
            (self.folder / "ends" / command).write_text(str(code))
        return subprocess.run(
            [self.folder / "search", "nvidia", "smollm2", "h100", "2026.11.24.40"],
            env={
                "PATH": "/usr/bin:/bin",
                "FLAGRELEASE_STATE": str(self.folder / "state"),
                "CALLS": str(self.folder / "calls"),
                "ENDS": str(self.folder / "ends"),
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def asked(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def visit(tmp_path: Path) -> Visit:
    return Visit(tmp_path)


def test_a_search_that_found_something_is_followed_by_a_release_without_it(visit: Visit) -> None:
    done = visit.make(smoke=1)
    assert done.returncode == 0, done.stdout
    first, *asked, last = visit.asked
    assert first == f"weights {CELL} --release 2026.11.24.40"
    # Each pair side by side: in any order.
    assert sorted(asked[:2]) == [f"{SEARCH} 0", f"operators {CELL}"]
    assert sorted(asked[2:]) == [
        f"{SEARCH} 60 --apply",
        f"smoke {CELL} --release 2026.11.24.40",
    ]
    assert last == f"release {CELL} --release 2026.11.24.40.1 --until performance"
    assert "smoke ended with 1" in done.stdout


@pytest.mark.parametrize(
    ("command", "code", "last"),
    [("weights", 4, "weights"), ("bisect", 5, "smoke"), ("release", 1, "release")],
)
def test_it_ends_with_the_exit_code_of_what_ended_it(
    visit: Visit, command: str, code: int, last: str
) -> None:
    done = visit.make(**{command: code})
    assert done.returncode == code
    commands = [line.split()[0] for line in visit.asked]
    assert ("release" in commands) == (command == "release")
    assert last in commands


def test_too_few_words_print_the_usage(visit: Visit) -> None:
    printed = subprocess.run(
        [visit.folder / "search", "nvidia"], capture_output=True, text=True, timeout=10, check=False
    )
    assert printed.returncode == 2
    assert printed.stdout.startswith("One visit to a node")
