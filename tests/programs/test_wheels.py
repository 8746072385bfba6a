"""Wheels for another machine: which platforms are asked for, and what is left of one that was trimmed."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.canonical import sha256_file
from pipeline.errors import WorldError
from pipeline.world import wheels
from pipeline.world.command import Completed, run
from pipeline.world.wheels import Platform, download_wheels, record_faults, trimmed
from tests.wheels import wheel_bytes

PLATFORM = Platform(python="3.12", glibc="2.39", machine="x86_64")
FILES = {
    "toy/__init__.py": b"answer = 42\n",
    "toy/_large.so": b"kernels" * 1000,
    "toy/data/one.txt": b"1",
    "toy_extra/two.txt": b"2",
}


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    made = tmp_path / "toy-1.0-py3-none-any.whl"
    made.write_bytes(wheel_bytes("toy", "1.0", FILES, with_record=True))
    return made


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info" not in name}


def test_a_wheel_loses_what_is_named_and_its_record_with_it(wheel: Path, tmp_path: Path) -> None:
    assert record_faults(wheel) == ()
    smaller = trimmed(wheel, ["toy/_large*", "toy/data"], tmp_path / "trimmed")
    assert names(smaller) == {"toy/__init__.py", "toy_extra/two.txt"}
    assert record_faults(smaller) == ()
    assert smaller.name == wheel.name
    assert smaller.stat().st_size < wheel.stat().st_size


def test_a_wheel_without_anything_named_stays_as_it_is(wheel: Path, tmp_path: Path) -> None:
    assert trimmed(wheel, ["other/*", "to"], tmp_path / "trimmed") == wheel
    assert not (tmp_path / "trimmed").exists()


def test_a_record_that_does_not_fit_its_wheel_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "toy-1.0-py3-none-any.whl"
    broken.write_bytes(wheel_bytes("toy", "1.0", {"toy.py": b"1"}))
    assert [line for line in record_faults(broken) if line.startswith("toy.py")] == [
        "toy.py: not in RECORD"
    ]


def test_pip_itself_installs_a_trimmed_wheel(wheel: Path, tmp_path: Path) -> None:
    smaller = trimmed(wheel, ["toy/_large.so"], tmp_path / "trimmed")
    run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--target", tmp_path / "site", smaller],
        doing="installing",
        hint="",
    )  # fmt: skip
    assert (tmp_path / "site/toy/__init__.py").read_bytes() == FILES["toy/__init__.py"]
    assert not (tmp_path / "site/toy/_large.so").exists()


def test_every_older_platform_is_asked_for() -> None:
    tags = PLATFORM.tags
    assert tags[0] == "manylinux_2_39_x86_64"
    assert {"manylinux_2_28_x86_64", "manylinux_2_5_x86_64", "manylinux2014_x86_64"} <= set(tags)


class Index:
    """Stands for pip: gives a wheel of each requirement, except those that have only a source."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, arguments: Sequence[str | Path], *, doing: str, hint: str) -> Completed:
        words = [str(word) for word in arguments]
        verb, listed = words[3], Path(words[-1]).read_text()
        self.asked.append((verb, listed))
        folder = Path(words[words.index("--dest" if verb == "download" else "--wheel-dir") + 1])
        for name, version in wheels.locked_versions(listed.encode()).items():
            (folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").write_bytes(b"w")
        return Completed(output="", seconds=0)


LOCK = b"big-toy==2.0 \\\n    --hash=sha256:aa\nold_toy==1.0 \\\n    --hash=sha256:bb\n"


def test_what_has_only_a_source_is_built_here_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index()
    monkeypatch.setattr(wheels, "run", index)
    (tmp_path / "big_toy-1.9-py3-none-any.whl").write_bytes(b"of an earlier lock")
    found = download_wheels(LOCK, PLATFORM, tmp_path, from_source=["old.toy", "other"])
    assert [path.name for path in found] == [
        "big_toy-2.0-py3-none-any.whl",
        "old_toy-1.0-py3-none-any.whl",
    ]
    assert [verb for verb, _ in index.asked] == ["download", "wheel"]
    assert "old_toy" not in index.asked[0][1]
    assert index.asked[1][1] == "old_toy==1.0 \\\n    --hash=sha256:bb\n"
    download_wheels(LOCK, PLATFORM, tmp_path, from_source=["old.toy"])
    assert [verb for verb, _ in index.asked] == ["download", "wheel", "download"]


def test_wheels_that_are_there_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index()
    monkeypatch.setattr(wheels, "run", index)
    path = tmp_path / "big_toy-2.0-py3-none-any.whl"
    path.write_bytes(b"w")
    lock = f"big-toy==2.0 \\\n    --hash=sha256:{sha256_file(path)}\n".encode()
    assert download_wheels(lock, PLATFORM, tmp_path) == (path,)
    assert index.asked == []
    path.write_bytes(b"damaged")
    download_wheels(lock, PLATFORM, tmp_path)
    assert [verb for verb, _ in index.asked] == ["download"]


def test_a_lock_that_pip_did_not_fulfil_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "run", lambda *_, **__: Completed(output="", seconds=0))
    with pytest.raises(WorldError, match="2 wheels of the lock are missing: big-toy, old-toy"):
        download_wheels(LOCK, PLATFORM, tmp_path)
