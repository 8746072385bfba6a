"""The committed record of the planted-fault trial keeps what the gate promises."""

from __future__ import annotations

import pytest

from pipeline.record import RecordStore
from tests.projects import ROOT
from tests.trials.record import PlantedFaults, code_sha256, read_record
from tests.trials.stacks import CASES, FAULTS, LIMITS, Kind

LEAST_RUNS_AGAINST_ITSELF = 20
MOST_VERDICT_SECONDS = 120


@pytest.fixture(scope="module")
def record() -> PlantedFaults:
    return read_record()


def statuses(record: PlantedFaults, kind: Kind) -> dict[str, str]:
    return {row.says: row.verdict.status for row in record.rows if row.kind == kind}


def test_it_was_made_with_the_code_and_the_limits_of_today(record: PlantedFaults) -> None:
    assert record.code_sha256 == code_sha256(), "run nox -s trials, and commit its record"
    assert {row.verdict.limits for row in record.rows} == {LIMITS}


def test_every_case_of_the_trial_is_in_it(record: PlantedFaults) -> None:
    assert [row.says for row in record.rows] == [case.says for case in CASES]


def test_it_was_made_on_the_image_of_a_release(record: PlantedFaults) -> None:
    released = RecordStore(ROOT / "records").of_cell("cpu", "smollm2")
    assert record.image in {found.image.config_digest for found in released if found.image}


def test_no_gross_fault_is_missed(record: PlantedFaults) -> None:
    assert set(statuses(record, "gross").values()) == {"fail"}


def test_every_subtle_fault_is_at_least_a_warning(record: PlantedFaults) -> None:
    assert set(statuses(record, "subtle").values()) <= {"warn", "fail"}


def test_no_legitimate_variant_is_an_alarm(record: PlantedFaults) -> None:
    legitimate = [row for row in record.rows if row.kind == "legitimate"]
    alarms = {row.case: row.verdict.status for row in legitimate if row.verdict.status != "pass"}
    assert alarms == {}
    itself = [row for row in record.rows if row.verdict.profile.name == "quick"]
    assert len(itself) >= LEAST_RUNS_AGAINST_ITSELF


def test_every_planted_operator_and_every_fault_really_ran(record: PlantedFaults) -> None:
    planted = {case.name for case in FAULTS}
    for row in record.rows:
        ran = {name for name, calls in row.calls.items() if calls}
        operators = {"attention", "fused_add_rms_norm", "linear", "rms_norm", "rotary_embedding"}
        due = {*operators, "silu", row.fault} - {""} if row.case in planted else set()
        assert ran == due, row.says


def test_a_verdict_takes_less_time_than_promised(record: PlantedFaults) -> None:
    assert max(row.verdict_seconds for row in record.rows) < MOST_VERDICT_SECONDS
