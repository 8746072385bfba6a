"""The committed record of the searches on the real server keeps what docs/bisect.md promises."""

from __future__ import annotations

from math import log2

import pytest

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
