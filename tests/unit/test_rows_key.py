"""Rows depend on what answers and how it is asked; the verdict also on policy and judge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.keys import key_of
from pipeline.parts import Inputs, parts_of, row_parts
from pipeline.project import Project
from pipeline.record import Stages
from pipeline.serve import conditions
from pipeline.stage_sources import SOURCES
from tests.projects import one_cell, toy_project
from tests.records import cpu_record

DONE: Stages = cpu_record().stages


def keys(project: Project, change: dict[str, str] | None = None) -> tuple[str, str]:
    """Of the rows and of the stage, with hashes of our own files changed."""
    cell = one_cell(project, "loom", "poet")
    inputs: Inputs = project.inputs(
        cell, project.matrix.targets["local"], builder="b", node="a node"
    )
    inputs = replace(inputs, sources={**inputs.sources, **(change or {})})
    stage = parts_of("accuracy", cell, inputs, DONE, "2026.11.24.1")
    return key_of(row_parts(cell, inputs, DONE)), key_of(stage)


def test_another_policy_judges_the_same_rows_again(tmp_path: Path) -> None:
    rows, stage = keys(toy_project(tmp_path))
    same_rows, other_stage = keys(toy_project(tmp_path, ("margin: 0.08", "margin: 0.05")))

    assert (same_rows == rows, other_stage == stage) == (True, False)


def test_another_judge_judges_the_same_rows_again(tmp_path: Path) -> None:
    project = toy_project(tmp_path)
    rows, stage = keys(project)
    same_rows, other_stage = keys(project, {"pipeline/gate/verdict.py": "0" * 64})

    assert (same_rows == rows, other_stage == stage) == (True, False)


@pytest.mark.parametrize("path", ["world/evaluator.py", "world/endpoint.py", "world/engine.py"])
def test_another_evaluator_asks_again(tmp_path: Path, path: str) -> None:
    project = toy_project(tmp_path)
    rows, stage = keys(project)
    other_rows, other_stage = keys(project, {f"pipeline/{path}": "0" * 64})

    assert (other_rows == rows, other_stage == stage) == (False, False)


def test_every_module_of_the_gate_that_judges_is_part_of_the_stages_key() -> None:
    package = Path(__file__).parents[2] / "pipeline"
    judging = {f"gate/{path.name}" for path in (package / "gate").glob("*.py")}
    judges_nothing = {
        "gate/__init__.py",
        "gate/forecast.py",
        "gate/hitting.py",
        "gate/planning.py",
        "gate/scenarios.py",
        "gate/search.py",
        "gate/simulate.py",
    }

    assert judging - judges_nothing <= set(SOURCES["accuracy"])


def test_a_module_that_was_split_off_one_of_a_key_is_part_of_the_key_too() -> None:
    package = Path(__file__).parents[2] / "pipeline"
    decides_nothing = {
        "world/engine_store.py",  # how a push reads an image
        "world/server_end.py",  # what is said of a server that is gone
    }
    missing = {
        f"{stage}: {part}"
        for stage, listed in SOURCES.items()
        for path in listed
        for split in package.glob(f"{path.removesuffix('.py')}_*.py")
        if f"{split.parent.name}.{split.stem} import" in (package / path).read_text("utf-8")
        and (part := split.relative_to(package).as_posix()) not in {*listed, *decides_nothing}
    }

    assert missing == set()


def test_stacks_have_everything_in_common_but_the_operator_switch_and_what_differs(
    tmp_path: Path,
) -> None:
    cell = one_cell(
        toy_project(tmp_path, ("differs: [dtype]", "differs: [dtype, FAST]")), "abacus", "poet"
    )
    slow, fast = (conditions(cell, stack, DONE) for stack in ("slow", "fast"))

    assert slow == fast
    assert slow["max_model_len"] == "2048"
    assert "dtype" not in slow
    assert set(slow) >= {"image", "weights", "enforce_eager", "BEADS"}


def test_a_variable_that_no_list_names_makes_stacks_incomparable(tmp_path: Path) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    slow, fast = (conditions(cell, stack, DONE) for stack in ("slow", "fast"))

    assert fast.items() - slow.items() == {("FAST", "1")}
