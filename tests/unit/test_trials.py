"""The committed record of the planted-fault trial keeps what the gate promises."""

from __future__ import annotations

import pytest

from pipeline.canonical import sha256_file
from pipeline.logit_policy import LogitLimits
from tests.trials.record import PlantedFaults, read_record
from tests.trials.stacks import LIBRARY, REFERENCE, STACKS, Kind

LEAST_RUNS_AGAINST_ITSELF = 20
MOST_VERDICT_SECONDS = 120


@pytest.fixture(scope="module")
def record() -> PlantedFaults:
    return read_record()


def statuses(record: PlantedFaults, kind: Kind) -> dict[str, str]:
    return {row.says: row.verdict.status for row in record.rows if row.kind == kind}


def test_it_was_made_with_the_library_and_the_limits_of_today(record: PlantedFaults) -> None:
    assert record.library_sha256 == sha256_file(LIBRARY), "run nox -s trials, and commit its record"
    assert {row.verdict.limits for row in record.rows} == {LogitLimits()}


def test_every_stack_of_the_trial_is_in_it(record: PlantedFaults) -> None:
    served = [row.stack for row in record.rows if row.stack != REFERENCE]
    assert served == [stack.name for stack in STACKS]


def test_no_gross_fault_is_missed(record: PlantedFaults) -> None:
    assert set(statuses(record, "gross").values()) == {"fail"}


def test_every_subtle_fault_is_at_least_a_warning(record: PlantedFaults) -> None:
    assert set(statuses(record, "subtle").values()) <= {"warn", "fail"}


def test_no_legitimate_variant_is_an_alarm(record: PlantedFaults) -> None:
    alarms = [says for says, status in statuses(record, "legitimate").items() if status != "pass"]
    assert alarms == []
    itself = [row for row in record.rows if row.stack == REFERENCE]
    assert len(itself) >= LEAST_RUNS_AGAINST_ITSELF


def test_every_planted_operator_and_every_fault_really_ran(record: PlantedFaults) -> None:
    planted = {stack.name: stack for stack in STACKS if stack.planted}
    for row in record.rows:
        if row.stack in planted:
            assert [
                name for name in (*row.registered, row.fault) if not row.calls.get(name, 0)
            ] in ([], [""])
        else:
            assert (row.registered, row.calls) == ((), {})


def test_a_verdict_takes_less_time_than_promised(record: PlantedFaults) -> None:
    assert max(row.verdict_seconds for row in record.rows) < MOST_VERDICT_SECONDS
