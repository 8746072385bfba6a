"""The records of real releases: each can be read, and gives its card or says why it has none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.canonical import canonical
from pipeline.errors import StageRefusedError
from pipeline.imported_record import read_imported
from pipeline.record import read_record
from pipeline.stages.card import card, imported_card
from pipeline.tombstones import tombstone_beside
from tests.projects import committed

ROOT = Path(__file__).parents[2]
RECORDS = sorted((ROOT / "records").glob("*/*/*/record.json"))
IMPORTED = sorted((ROOT / "records/imported").glob("*/*/imported.yaml"))
BY_NAME = pytest.mark.parametrize(
    "path", RECORDS, ids=lambda path: path.parent.relative_to(ROOT / "records").as_posix()
)


def test_there_are_records_of_real_releases() -> None:
    assert {path.parts[-3] for path in RECORDS} == {"cpu", "nvidia"}


@BY_NAME
def test_a_record_lies_where_it_belongs_in_canonical_form(path: Path) -> None:
    record = read_record(path)
    assert path.parent == ROOT / "records" / record.release / record.chip / record.model
    assert canonical(json.loads(path.read_bytes())) + b"\n" == path.read_bytes()


@BY_NAME
def test_a_passed_record_gives_its_card_and_a_refused_or_unfinished_one_none(path: Path) -> None:
    record, templates = read_record(path), committed().templates
    is_passed = all(stage.status == "passed" for _, stage in record.stages if stage is not None)
    if is_passed and record.stages.performance is not None:
        for name, data in card(record, templates, tombstone_beside(path.parent)).items():
            assert (path.parent / name).read_bytes() == data, "run nox -s cards"
    else:
        missing = "performance: not_run" if is_passed else "smoke: failed"
        with pytest.raises(StageRefusedError, match=missing):
            card(record, templates)


@pytest.mark.parametrize("path", IMPORTED, ids=lambda path: "/".join(path.parts[-3:-1]))
def test_an_imported_record_lies_where_it_belongs_beside_its_card(path: Path) -> None:
    record = read_imported(path)
    assert path.parts[-3:-1] == (record.chip, record.model)
    assert record.cell == f"{record.chip}/{record.model}"
    for name, data in imported_card(record, committed().templates).items():
        assert (path.parent / name).read_bytes() == data, "run nox -s cards"
