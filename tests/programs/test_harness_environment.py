from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import CommandError
from pipeline.world.harness_environment import harness_python


def requirements(folder: Path, text: str) -> Path:
    path = folder / "toy.lock"
    path.write_text(text)
    return path


def test_an_environment_is_made_once_and_again_when_it_was_only_half_made(tmp_path: Path) -> None:
    said: list[str] = []
    wanted = requirements(tmp_path, "# nothing\n")
    python = harness_python(wanted, tmp_path / "environments", said.append)
    assert python.exists()
    assert harness_python(wanted, tmp_path / "environments", said.append) == python
    assert said == ["making the environment of toy, once"]
    (python.parents[1] / "complete").unlink()
    left_over = python.parents[1] / "left over"
    left_over.touch()
    harness_python(wanted, tmp_path / "environments", said.append)
    assert len(said) == 2
    assert not left_over.exists()


def test_another_list_is_another_environment_and_one_that_cannot_be_had_is_not_complete(
    tmp_path: Path,
) -> None:
    environments = tmp_path / "environments"
    python = harness_python(requirements(tmp_path, "# nothing\n"), environments, print)
    unpinned = requirements(tmp_path, "toy==1\n")
    with pytest.raises(CommandError, match="making the environment of a harness") as caught:
        harness_python(unpinned, environments, print)
    assert "In `--require-hashes` mode, all requirements must have a hash" in str(caught.value)
    made = sorted(path.parent.name for path in environments.glob("*/complete"))
    assert made == [python.parents[1].name]
