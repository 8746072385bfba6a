"""Culprits among some 430 registered operators, found on the real server: one engine switched, the answer by restarts.

Answers are kept under out/, so that a trial that was cut short goes on. Each case goes into the record, which
tests/unit/test_search_record.py holds to what the search promises.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from pipeline.bisecting import Search, search_operators, write_findings
from pipeline.canonical import canonical, write_whole
from pipeline.culprits import BisectResult
from pipeline.matrix_file import read_matrix
from pipeline.probes.built import BuiltCell
from pipeline.probes.candidate import Library, library_in
from tests.projects import ROOT
from tests.served import built_cell
from tests.trials.searches import (
    CASES,
    RECORD,
    Case,
    SearchRow,
    changes,
    with_row,
)

pytestmark = pytest.mark.trials
KEPT = ROOT / "out/trials/bisect"


@dataclass(frozen=True, kw_only=True)
class Trial:
    served: BuiltCell
    library: Library

    def search(self, case: Case) -> BisectResult:
        search = Search(stack=case.stack, level="fail", budget_s=1800, verify="quick")
        return search_operators(self.served, search, self.library, print)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder = tmp_path_factory.mktemp("search")
    built = built_cell(folder, changes(), share=ROOT / "out/share")
    KEPT.mkdir(parents=True, exist_ok=True)
    (folder / "out/bisect").symlink_to(KEPT)
    served = built.searched
    library = library_in(built.engine, served.image, built.cell, CASES[0].stack)
    return Trial(served=served, library=library)


def test_about_as_many_operators_as_flaggems_has_are_registered(trial: Trial) -> None:
    assert len(trial.library.operators) >= 400


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_planted_is_found(trial: Trial, case: Case) -> None:
    result = trial.search(case)
    assert result.status == "found", result.sentence
    assert frozenset(result.failing_sets) == case.failing_sets
    assert len(result.exclusion) == len(case.failing_sets)
    row = SearchRow(case=case.name, says=case.says, result=result)
    found = with_row(row, datetime.now(UTC).isoformat(timespec="seconds"))
    write_whole(RECORD, canonical(found.model_dump(mode="json")) + b"\n")
    files = write_findings(result, trial.served, trial.library)
    assert [path.suffix for path in files][:2] == [".json", ".patch"]
    assert read_matrix(trial.served.project.matrix_path)
