"""A plan as jobs of a workflow, and what GitHub reads of a command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cells import cells, select
from pipeline.errors import StageRefusedError, UsageError
from pipeline.github import add_to_summary, annotated, markdown_table, set_output
from pipeline.jobs import Job, jobs, jobs_json
from tests.projects import committed, toy_project


def test_every_cell_is_a_job_on_a_runner_named_as_its_chip_for_its_record_is_needed(
    tmp_path: Path,
) -> None:
    chosen = cells(toy_project(tmp_path).matrix)
    assert jobs(chosen) == tuple(
        Job(chip=cell.chip_id, model=cell.model_id, runner=cell.chip_id) for cell in chosen
    )


def test_cells_of_a_chip_are_dealt_out_to_its_machines() -> None:
    matrix = committed().matrix
    chip = matrix.chips["nvidia"].model_copy(update={"runners": ["h100-1", "h100-2"]})
    matrix = matrix.model_copy(update={"chips": {**matrix.chips, "nvidia": chip}})
    chosen = select(matrix, ["nvidia", "*"])
    found = jobs(chosen)
    turns = [job.runner for job in found]
    assert turns == [("h100-1", "h100-2")[i % 2] for i in range(len(chosen))]


def test_the_whole_matrix_fits_into_one_workflow() -> None:
    chosen = cells(committed().matrix)
    found = json.loads(jobs_json(jobs(chosen)))
    assert len(found["include"]) == len(chosen) >= 90
    assert found["include"][0].keys() == {"chip", "model", "runner"}


def test_more_jobs_than_github_takes_are_refused() -> None:
    job = Job(chip="nvidia", model="step3", runner="nvidia")
    assert "\n" not in jobs_json([job] * 256)
    with pytest.raises(UsageError, match="257 cells"):
        jobs_json([job] * 257)
    with pytest.raises(UsageError, match="1048576 bytes"):
        jobs_json([job.model_copy(update={"model": "m" * 5000})] * 256)


def test_faults_of_a_file_are_annotations_at_their_lines() -> None:
    error = UsageError(
        "matrix.yaml has 2 faults",
        details="matrix.yaml:233:5: chips.nvidia: this key is required\nmatrix.yaml:234: 100%, wrong",
        hint="docs/matrix.schema.json describes every key",
    )
    assert list(annotated(error)) == [
        "::error file=matrix.yaml,line=233,col=5::chips.nvidia: this key is required",
        "::error file=matrix.yaml,line=234::100%25, wrong",
    ]


def test_an_error_without_a_place_is_one_annotation_with_its_lines() -> None:
    error = StageRefusedError("it died", where="smoke of a/b: x,y", details="one\ntwo")
    assert list(annotated(error)) == [
        "::error title=smoke of a/b%3A x%2Cy::smoke of a/b: x,y: it died%0Aone%0Atwo"
    ]


def test_outputs_and_summary_are_written_only_where_github_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    set_output("cells", "[]")
    add_to_summary("nothing")
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.setenv(name, str(tmp_path / name))
    set_output("cells", "[]")
    add_to_summary(markdown_table(("cell", "why"), [("a/b", "1 | 2\n3")]))
    assert (tmp_path / "GITHUB_OUTPUT").read_text() == "cells=[]\n"
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text() == (
        "| cell | why |\n| --- | --- |\n| a/b | 1 &#124; 2 3 |\n\n"
    )
