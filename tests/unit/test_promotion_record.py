"""The committed record of promotions through faults says what docs/registry.md says, and all of it ended well."""

from __future__ import annotations

import pytest

from tests.promotion_faults import SEED, kill_points
from tests.trials.promotion_record import (
    KILLS,
    PROMOTION_RECORD,
    PromotionFaults,
    table,
    written_table,
)


@pytest.fixture(scope="module")
def record() -> PromotionFaults:
    return PromotionFaults.model_validate_json(PROMOTION_RECORD.read_bytes())


def test_the_page_shows_the_record(record: PromotionFaults) -> None:
    assert written_table() == table(record)


def test_twenty_kills_at_the_points_of_its_seed_left_no_mixed_tags(record: PromotionFaults) -> None:
    assert record.seed == SEED
    points = [
        f"{'before' if is_before else 'after'} request {number}: "
        for number, is_before in kill_points(record.requests, KILLS)
    ]
    assert [row.at.partition(": ")[0] + ": " for row in record.kills] == points
    assert [row.ended for row in record.kills] == ["killed"] * KILLS
    assert [row for row in record.rows if not row.is_right] == []


def test_every_fault_that_was_asked_for_is_in_it(record: PromotionFaults) -> None:
    assert {row.fault for row in record.rows} == {
        "kill -9",
        "connection cut in the middle of a blob",
        *(f"burst of {status}" for status in (500, 502, 503, 429)),
        "503 that stays",
        "wrong digest",
        "full disk",
        "expired credentials",
        "two promoters at once",
    }
