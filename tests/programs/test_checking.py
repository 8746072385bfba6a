"""An operator check of a served stack: what it leaves, and whose fault it is when its server breaks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import StageRefusedError, WorldError
from pipeline.operator_evidence import AskedOperators
from pipeline.probes.cell_check import known_check
from pipeline.probes.checking import SLOT, check_operators
from pipeline.world import server
from pipeline.world.operator_check import OperatorCheck
from tests.fakes import FakeEngine, ServingImage
from tests.fakes_server import Behaviour, free_port
from tests.projects import one_cell, toy_project
from tests.toy_built import toy_built, toy_candidate
from tests.unit.test_operator_check import check, operator

OPERATORS = frozenset({"gelu", "silu", "softmax"})
WORKER = {
    "check_schema": 1,
    "backend": "CPU",
    "rank": 0,
    "process": 7,
    "seconds": {},
    "outside_dispatcher": ["softmax"],
    "operators": {"silu": operator()},
}


@pytest.fixture(autouse=True)
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.01)


def checked(folder: Path, *, writes: bool = True, **image: Any) -> OperatorCheck:
    """Of the toy cell, whose server is a stand-in and whose workers write one file."""
    project = toy_project(folder)
    cell = one_cell(project, "abacus", "poet")
    port = free_port()
    cell = replace(cell, model=cell.model.model_copy(update={"port": port - 1 - SLOT}))
    place = project.bisect_folder(cell)

    def write(_: object) -> None:
        if writes:
            (place / "check/check-rank0.7.json").write_text(json.dumps(WORKER))

    candidate = toy_candidate(
        project, cell, FakeEngine(ServingImage(port=port, **image), when_started=write), OPERATORS
    )
    return check_operators(candidate, OPERATORS - {"gelu"}, folder / "serving", lambda _: None)


def test_a_check_says_what_was_off_what_was_seen_and_what_nobody_sees(tmp_path: Path) -> None:
    found = checked(tmp_path)
    assert found.is_whole
    assert found.excluded == ("gelu",)
    assert found.outside == ("softmax",)
    assert [row.name for row in found.rows()] == ["silu"]


def test_a_server_without_an_answer_makes_the_check_no_whole_one(tmp_path: Path) -> None:
    found = checked(tmp_path, behaviour=Behaviour(completion_status=500, error="no kernel"))
    assert not found.is_whole
    assert "no kernel" in found.refused


def test_a_fault_of_the_machine_is_no_finding(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="for want of memory") as caught:
        checked(tmp_path, behaviour=Behaviour(completion_status=500), memory_events="oom_kill 1\n")
    assert not isinstance(caught.value, StageRefusedError)


def test_workers_that_write_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageRefusedError, match="no worker wrote a check of its operators"):
        checked(tmp_path, writes=False)


def test_the_report_of_other_operators_is_another_report(tmp_path: Path) -> None:
    project = toy_project(tmp_path)
    cell = one_cell(project, "abacus", "poet")
    built = replace(toy_built(project, cell), image="i@sha256:0")
    path = project.operators_file(cell)
    path.parent.mkdir(parents=True)
    assert known_check(built, "flagos") is None
    report = check(silu=operator()).model_copy(update={"excluded": ("gelu",)})
    path.write_text(report.model_dump_json())
    asked = AskedOperators(library="beads", exclude=("gelu",))
    assert known_check(built, "flagos") == report
    assert known_check(built, "flagos", asked) == report
    assert known_check(built, "flagos", AskedOperators(library="beads")) is None
    only = AskedOperators(library="beads", include=("silu",))
    assert known_check(built, "flagos", only) is None
    assert known_check(built, "another") is None
    assert known_check(replace(built, image="i@sha256:1"), "flagos") is None
