"""`node/start` on a node made of fakes: a PATH with the programs it asks, no engine, no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.world.pieces import Member, write_pieces
from tests.projects import ROOT

# Says what it was asked; knows an image once it was imported.
DOCKER = """#!/bin/bash
echo "docker $*" >>"$CALLS"
case "$1 $2" in
    "version "*) [[ -e $STARTED ]] ;;
    "image inspect") [[ -e $IMPORTED ]] ;;
    "import "*) sleep "${SLOWLY:-0}"; cat >"$IMPORTED"; [[ ! -e $FULL ]] ;;
    "rmi "*) rm "$IMPORTED" ;;
esac
"""
DOCKERD = """#!/bin/bash
echo "dockerd $*" >>"$CALLS"
touch "$STARTED"
exec sleep 5
"""
# The whole system is not imported here: what tar is asked is what counts.
TAR = """#!/bin/bash
if [[ " $* " == *" --one-file-system "* ]]; then echo "tar $*" >>"$CALLS"; echo system; else exec /usr/bin/tar "$@"; fi
"""

# pip is slow to start, and installing is its own affair.
PYTHON = f"""#!/bin/bash
[[ "$1 $2" == "-m pip" ]] || exec {sys.executable} "$@"
echo "pip $*" >>"$CALLS"
while [[ $1 != --target ]]; do shift; done
mkdir -p "$2" && echo "found = True" >"$2/toy_tool.py"
"""


class Node:
    def __init__(self, folder: Path) -> None:
        self.code = folder / "code"
        self.state = folder / "state"
        self.bundle = folder / "bundle"
        self.calls = folder / "calls"
        self.full = folder / "full"
        (self.code / "node").mkdir(parents=True)
        shutil.copy(ROOT / "node/start", self.code / "node")
        self.programs = folder / "bin"
        self.programs.mkdir()
        for name, script in (("docker", DOCKER), ("dockerd", DOCKERD), ("tar", TAR)):
            (self.programs / name).write_text(script)
            (self.programs / name).chmod(0o755)
        environment = folder / "venv/bin"
        environment.mkdir(parents=True)
        (environment / "python3").write_text(PYTHON)
        (environment / "python3").chmod(0o755)
        self.pack(b"first")

    def pack(self, note: bytes, engine: Sequence[Member] = ()) -> None:
        """With an engine, the node may begin with its base image as soon as the first piece is there."""
        write_pieces(
            self.bundle,
            [
                *engine,
                Member(path="wheels/large.whl", content=b"w" * 50_000),
                Member(path="pipeline/toy_tool-1.0-py3-none-any.whl", content=b"tool"),
                Member(path="download/items.whl", content=b"items"),
                Member(path="code/note", content=note),
            ],
            piece_bytes=20_480,
            settings={
                "EARLY_PIECES": "1" if engine else "",
                "NOT_IN_BASE": "/opt/sdk* /opt/cache",
                "REVISION": "abc",
                "TOOL_PATHS": "",
                "VENV": str(self.programs.parent / "venv"),
            },
        )

    def start(self, *words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.code / "node/start", *words],
            env={
                "PATH": f"{self.programs}:/usr/bin:/bin",
                "FLAGRELEASE_STATE": str(self.state),
                "CALLS": str(self.calls),
                "FULL": str(self.full),
                "STARTED": str(self.calls.with_name("started")),
                "IMPORTED": str(self.calls.with_name("imported")),
                **more,
            },
            cwd=self.code.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def asked(self, program: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.startswith(program)]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_pieces_arrive_one_by_one_and_the_missing_ones_are_named(node: Node) -> None:
    first = node.start("receive", node.bundle / "piece.00")
    assert (first.returncode, first.stderr.partition("s  ")[2]) == (
        0,
        "still missing: piece.01 piece.02\n",
    )
    refused = node.start("prepare")
    assert refused.returncode == 4
    assert "the bundle is not whole" in refused.stderr
    assert "all 3 pieces are here" in node.start("receive", node.bundle).stderr


def test_a_damaged_piece_is_refused_and_not_kept(node: Node) -> None:
    data = node.bundle / "piece.01/data"
    data.write_bytes(b"x" + data.read_bytes()[1:])
    refused = node.start("receive", node.bundle)
    assert refused.returncode == 4
    assert "piece.01 is damaged: carry it again" in refused.stderr
    assert [path.name for path in (node.state / "inbox").glob("piece.*")] == ["piece.00"]


def test_a_node_is_prepared_once(node: Node) -> None:
    node.start("receive", node.bundle)
    prepared = node.start("prepare")
    assert prepared.returncode == 0, prepared.stderr
    assert (node.code / "out/node/code/note").read_bytes() == b"first"
    assert (node.code / "out/share/download/items.whl").read_bytes() == b"items"
    assert node.asked("dockerd") == [
        "dockerd --iptables=false --ip6tables=false --bridge=none"
        f" --data-root {node.state}/docker --exec-root {node.state}/run"
    ]
    [imported] = node.asked("tar")
    for left_out in ("./tmp/*", "./opt/sdk*", "./opt/cache", f".{node.state}", f".{node.code}"):
        assert f"--exclude={left_out}" in imported
    assert node.start("prepare").returncode == 0
    assert [len(node.asked(name)) for name in ("dockerd", "tar", "pip")] == [1, 1, 1]


def test_a_new_bundle_replaces_only_the_pieces_that_differ(node: Node) -> None:
    node.start("receive", node.bundle)
    node.start("prepare")
    node.pack(b"second")
    received = node.start("receive", node.bundle / "piece.02")
    assert "all 3 pieces are here" in received.stderr
    assert node.start("prepare").returncode == 0
    assert (node.code / "out/node/code/note").read_bytes() == b"second"
    assert len(node.asked("tar")) == 1, "the base image does not depend on what is carried"


def test_a_full_disk_leaves_no_half_imported_base(node: Node) -> None:
    node.start("receive", node.bundle)
    node.full.touch()
    failed = node.start("prepare")
    assert failed.returncode == 4
    assert "the base image could not be imported; is the disk full?" in failed.stderr
    node.full.unlink()
    assert node.start("prepare").returncode == 0
    assert len(node.asked("tar")) == 2


@pytest.fixture
def debs(tmp_path: Path) -> list[Member]:
    """A Debian package with one program."""
    tree = tmp_path / "package"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: toy\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: toy\n"
    )
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/toy-engine").write_text("#!/bin/sh\n")
    deb = tmp_path / "toy.deb"
    subprocess.run(["dpkg-deb", "--build", tree, deb], check=True, capture_output=True)
    return [Member(path="engine/toy.deb", content=deb)]


def until(there: Path) -> None:
    deadline = time.monotonic() + 30
    while not there.exists():
        assert time.monotonic() < deadline, f"{there} never came"
        time.sleep(0.02)


def test_the_base_image_is_begun_before_all_pieces_are_there_and_made_once(
    node: Node, debs: list[Member]
) -> None:
    node.pack(b"first", debs)
    first = node.start("receive", node.bundle / "piece.00", SLOWLY="1")
    assert "still missing: piece.01 piece.02" in first.stderr
    until(node.calls.with_name("started"))
    assert (node.state / "engine/usr/bin/toy-engine").exists()
    node.start("receive", node.bundle)  # begins it too, and waits for its turn
    prepared = node.start("prepare")
    assert prepared.returncode == 0, prepared.stderr
    assert "waiting for the base image that receive began" in prepared.stderr
    assert [len(node.asked(name)) for name in ("dockerd", "tar", "pip")] == [1, 1, 1]


def test_a_base_image_that_could_not_be_begun_early_is_made_by_prepare(
    node: Node, debs: list[Member]
) -> None:
    node.pack(b"first", debs)
    node.full.touch()
    node.start("receive", node.bundle / "piece.00")
    until(node.state / "early.log")
    deadline = time.monotonic() + 30
    while "could not be imported" not in (node.state / "early.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    node.full.unlink()
    assert node.start("receive", node.bundle / "piece.01").returncode == 0
    node.start("receive", node.bundle)
    prepared = node.start("prepare")
    assert prepared.returncode == 0, prepared.stderr
    assert node.calls.with_name("imported").exists()


def test_ad_hoc_python_sees_what_was_carried_and_the_checkout(node: Node) -> None:
    node.start("receive", node.bundle)
    (node.code / "mine.py").write_text(
        "import os, toy_tool\nprint(os.environ['FLAGRELEASE_REVISION'])"
    )
    ran = node.start("python", "mine.py")
    assert (ran.returncode, ran.stdout) == (0, "abc\n")


def test_other_words_print_the_usage(node: Node) -> None:
    printed = node.start("build")
    assert printed.returncode == 2
    assert printed.stdout.startswith("The side of a node without network (docs/air-gapped.md).")


def test_the_script_is_executable_in_git() -> None:
    assert os.access(ROOT / "node/start", os.X_OK)
