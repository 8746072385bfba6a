"""Records on disk: whole or not at all, the same bytes everywhere, and refused when they cannot be read."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.canonical import canonical, sha256_bytes, sha256_file, write_whole
from pipeline.errors import UsageError, WorldError
from pipeline.record import STAGES, Record, RecordStore, Stages, read_record, record_bytes
from pipeline.results import FileHash
from tests.record_parts import passed
from tests.records import RELEASE, cpu_facts, cpu_record, nvidia_record, without


def disk_full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("record", [cpu_record(), nvidia_record()], ids=lambda record: record.cell)
def test_a_record_is_read_back_as_it_was_written(tmp_path: Path, record: Record) -> None:
    store = RecordStore(tmp_path)
    path = store.write(record)
    assert path == tmp_path / RELEASE / record.chip / record.model / "record.json"
    assert store.read(RELEASE, record.chip, record.model) == record


def test_writing_what_was_read_gives_the_same_bytes(tmp_path: Path) -> None:
    path = RecordStore(tmp_path).write(cpu_record())
    assert record_bytes(read_record(path)) == path.read_bytes()


def test_a_crash_while_writing_leaves_the_old_record_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RecordStore(tmp_path)
    store.write(cpu_record())
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(WorldError, match="No space left"):
        store.write(without(cpu_record(), "smoke"))
    assert store.read(RELEASE, "cpu", "smollm2") == cpu_record()


def test_what_a_crash_left_half_written_is_no_record_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", disk_full)
    store = RecordStore(tmp_path)
    with pytest.raises(WorldError, match="No space left"):
        store.write(cpu_record())
    assert store.read(RELEASE, "cpu", "smollm2") is None
    assert store.of_cell("cpu", "smollm2") == ()


def test_a_file_is_flushed_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    existed: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: existed.append((tmp_path / "file").exists()))
    write_whole(tmp_path / "file", b"content")
    assert existed == [False]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_records_of_a_cell_come_newest_first_and_of_no_other_cell(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    names = ("2026.11.1.1", "2026.11.3.1", "2026.11.2.1")
    for number, name in enumerate(names):
        path = store.write(cpu_record().model_copy(update={"release": name}))
        os.utime(path, ns=(number, number))
    store.write(nvidia_record())
    assert [record.release for record in store.of_cell("cpu", "smollm2")] == list(reversed(names))


def test_canonical_bytes_do_not_depend_on_the_order_of_keys() -> None:
    assert canonical({"b": 1, "a": [True, None, "é"], "c": 0.5}) == (
        '{"a":[true,null,"é"],"b":1,"c":0.5}'.encode()
    )
    assert canonical({"c": 0.5, "a": [True, None, "é"], "b": 1}) == canonical(
        {"b": 1, "a": [True, None, "é"], "c": 0.5}
    )


def test_numbers_are_written_as_rfc_8785_wants_them() -> None:
    assert canonical([1.0, 1e21, 1e-7, -0.0, 333333333.33333329]) == (
        b"[1,1e+21,1e-7,0,333333333.3333333]"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_neither_written_nor_kept(value: float) -> None:
    with pytest.raises(ValueError, match=r"NaN|nan|inf|Infinity"):
        canonical({"loss": value})
    with pytest.raises(ValidationError, match="finite number"):
        cpu_facts().model_validate(cpu_facts().model_dump() | {"tokens_per_second": value})


def test_nan_in_the_raw_file_of_a_load_run_is_kept_as_null() -> None:
    performance = cpu_record().stages.performance
    assert performance is not None
    assert performance.result is not None
    load = performance.result.loads[0].model_copy(update={"raw": {"std_ttft_ms": math.nan}})
    result = performance.result.model_copy(update={"loads": (load,)})
    written = json.loads(record_bytes(cpu_record().with_stage("performance", passed(result))))
    assert written["stages"]["performance"]["result"]["loads"][0]["raw"] == {"std_ttft_ms": None}


def test_a_record_that_cannot_be_read_names_its_file_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"cell": "cpu/smollm2", "colour": "red"}')
    with pytest.raises(UsageError) as caught:
        read_record(path)
    error = caught.value
    assert (error.message, error.where) == ("this record cannot be read", str(path))
    assert error.hint == (
        "it was changed, or written by another version of the pipeline; move the file away:"
        " nox -s card fetches that of a public release, nox -s release starts the cell anew"
    )
    assert "colour\n  Extra inputs are not permitted" in error.details


def test_a_record_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(record_bytes(cpu_record())[:-100])
    with pytest.raises(UsageError, match="this record cannot be read"):
        read_record(path)


def test_a_record_of_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    newer = json.loads(record_bytes(cpu_record())) | {"record_schema": 2}
    path.write_text(json.dumps(newer))
    with pytest.raises(UsageError, match="this record cannot be read"):
        read_record(path)


def test_with_stage_replaces_one_stage_and_keeps_the_others() -> None:
    record = cpu_record()
    smoke = record.stages.smoke
    assert smoke is not None
    changed = record.with_stage("smoke", smoke.model_copy(update={"status": "failed"}))
    assert changed.stages.smoke is not None
    assert changed.stages.smoke.status == "failed"
    assert without(changed, "smoke") == without(record, "smoke")


def test_every_stage_of_the_flow_has_a_place_in_the_record() -> None:
    assert tuple(Stages.model_fields) == STAGES


def test_hashes_of_bytes_and_files_agree(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert sha256_file(tmp_path / "file") == sha256_bytes(b"content")


def test_what_is_stored_cannot_be_changed() -> None:
    file = FileHash(path="a", sha256="b", size_bytes=1)
    with pytest.raises(ValidationError, match="frozen"):
        file.path = "c"  # type: ignore[misc]


def test_a_file_that_cannot_be_written_names_its_path_and_a_next_step(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(WorldError) as caught:
        write_whole(tmp_path / "out" / "record.json", b"{}")
    assert caught.value.exit_code == 4
    assert str(tmp_path / "out") in caught.value.where
    assert "df -h" in caught.value.hint
