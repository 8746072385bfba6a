"""The committed record of the searches on the real server keeps what docs/bisect.md promises."""

from __future__ import annotations

import ast
import re
from math import log2
from pathlib import Path

import pytest

from pipeline.cards.operator_issue import IssueFacts, operator_issue
from pipeline.culprits import BisectResult
from pipeline.world.operator_check import OperatorCheck
from tests.projects import ROOT, committed
from tests.trials.searches import (
    CASES,
    SearchRow,
    libraries_sha256,
    read_searches,
)

RECORDED = read_searches()


@pytest.fixture(params=RECORDED.rows, ids=lambda row: row.case)
def row(request: pytest.FixtureRequest) -> SearchRow:
    found: SearchRow = request.param
    return found


def test_every_planted_case_is_in_it() -> None:
    assert [row.case for row in RECORDED.rows] == [case.name for case in CASES]
    assert RECORDED.libraries_sha256 == libraries_sha256(), (
        "run nox -s trials, and commit its record"
    )


def test_exactly_what_was_planted_was_found(row: SearchRow) -> None:
    planted = next(case for case in CASES if case.name == row.case)
    assert row.result.status == "found"
    assert frozenset(row.result.failing_sets) == planted.failing_sets
    assert len(row.result.exclusion) == len(planted.failing_sets)
    assert row.result.maskings == ()


def test_the_search_took_no_more_probes_than_promised(row: SearchRow) -> None:
    n, k = len(row.result.operators), sum(map(len, row.result.failing_sets))
    searched = len(row.result.probes) - len(row.result.checks)
    assert n >= 400
    assert searched <= 2 * k * log2(n / k)


def test_every_answer_was_confirmed_by_engines_started_for_it(row: SearchRow) -> None:
    assert row.result.checks
    assert all(check.held and check.probe.answer.starts == 1 for check in row.result.checks)


def test_only_a_culprit_that_kills_the_engine_costs_more_starts(row: SearchRow) -> None:
    crashes = [probe for probe in row.result.probes if probe.answer.verdict == "crash"]
    by_search = row.result.starts - len(row.result.checks)
    assert bool(crashes) == (row.case == "crash")
    assert by_search <= 1 + len(crashes)


EVIDENCE = sorted((ROOT / "records").glob("*/*/*/bisect-*.json"))


def test_what_the_matrix_excludes_after_a_search_names_evidence_that_is_committed() -> None:
    found = {path.stem: BisectResult.model_validate_json(path.read_bytes()) for path in EVIDENCE}
    assert {name: result.id for name, result in found.items()} == {name: name for name in found}
    for cell in committed().cells:
        for name, exclusion in cell.override.operators.exclude.items():
            if exclusion.evidence.startswith("bisect-"):
                result = found[exclusion.evidence]
                assert (result.status, result.subject.cell) == ("found", cell.id)
                assert name in result.exclusion


@pytest.mark.parametrize("path", EVIDENCE, ids=lambda path: path.stem)
def test_the_issue_of_a_search_on_a_node_shows_a_call_that_its_reader_can_run(path: Path) -> None:
    result = BisectResult.model_validate_json(path.read_bytes())
    check = OperatorCheck.model_validate_json((path.parent / "operators.json").read_bytes())
    (failing,) = result.failing_sets
    facts = IssueFacts(
        packages={},
        device=result.subject.node,
        model="SmolLM2-135M-Instruct",
        command="flagscale serve smollm2",
        worker="",
        smallest_call=check.smallest_call(failing),
    )
    blocks = re.findall(r"```python\n(.*?)```", operator_issue(result, failing, facts), re.DOTALL)
    *_, call = [ast.parse(block) for block in blocks]
    imported = {
        name.name for node in call.body if isinstance(node, ast.Import) for name in node.names
    }
    used = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)} - {"result"}
    assert used == imported == {"torch", "flag_gems"}
    assert "where the reference has (8192, 32)" in blocks[-1]
