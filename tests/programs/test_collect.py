"""What comes back from a node: packed by node/start itself, verified, merged, and refused when it is not sound."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import StageRefusedError, UsageError
from pipeline.record import Record, RecordStore
from pipeline.stages.collect import Collected, collect
from tests.projects import ROOT
from tests.records import nvidia_record

CELLS = {"nvidia/step3"}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The code folder of a node that ran something."""
    folder = tmp_path / "node-code"
    (folder / "node").mkdir(parents=True)
    shutil.copy(ROOT / "node/start", folder / "node/start")
    ran(folder, nvidia_record())
    return folder


def ran(folder: Path, record: Record) -> None:
    store = RecordStore(folder / "out")
    there = store.write(record).parent
    (there / "accuracy.log").write_text("scored\n")
    (there / "items.jsonl").write_text("{}\n")
    (folder / "out/share/step3").mkdir(parents=True, exist_ok=True)
    (folder / "out/share/step3/model.safetensors").write_text("weights do not travel back")


def packed(node: Path, to: Path) -> Path:
    subprocess.run(
        [node / "node/start", "pack", to],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "FLAGRELEASE_STATE": str(node / "state")},
    )
    return to


def collected(folder: Path, root: Path) -> Collected:
    (done,) = collect(folder, root=root, cells=CELLS)
    return done


def test_a_record_comes_back_with_its_files_and_is_committed(node: Path, tmp_path: Path) -> None:
    done = collected(packed(node, tmp_path / "back"), tmp_path / "here")
    assert done.record == nvidia_record()
    assert done.new_stages == ("build", "weights", "smoke", "accuracy", "performance")
    place = f"{done.record.release}/nvidia/step3"
    here = tmp_path / "here"
    assert sorted(path.name for path in (here / "out" / place).iterdir()) == [
        "accuracy.log",
        "items.jsonl",
        "record.json",
    ]
    committed = sorted(
        path.relative_to(here / "records") for path in (here / "records").rglob("*.*")
    )
    assert Path(place, "record.json") in committed
    assert not list(here.rglob("*.safetensors"))


def test_what_a_search_found_comes_back_with_the_record(node: Path, tmp_path: Path) -> None:
    search = node / "out/bisect/nvidia/step3/findings/issue.md"
    search.parent.mkdir(parents=True)
    search.write_text("softmax is wrong")
    harness = node / "out/environments/harness/bin/python"
    harness.parent.mkdir(parents=True)
    harness.write_text("stays there")
    collected(packed(node, tmp_path / "back"), tmp_path / "here")
    found = tmp_path / "here/out/bisect/nvidia/step3/findings/issue.md"
    assert found.read_text() == "softmax is wrong"
    assert not (tmp_path / "here/out/environments").exists()


def test_collecting_twice_changes_nothing(node: Path, tmp_path: Path) -> None:
    back = packed(node, tmp_path / "back")
    collected(back, tmp_path / "here")
    assert collected(back, tmp_path / "here").new_stages == ()


def test_what_the_node_did_since_is_taken_over(node: Path, tmp_path: Path) -> None:
    whole = nvidia_record()
    ran(node, whole.with_stage("accuracy", None).with_stage("performance", None))  # type: ignore[arg-type]
    first = collected(packed(node, tmp_path / "one"), tmp_path / "here")
    assert first.new_stages == ("build", "weights", "smoke")
    smoke = whole.stages.smoke
    assert smoke is not None
    again = smoke.model_copy(update={"started": "2099-01-01T00:00:00+00:00", "seconds": 9.0})
    ran(node, whole.with_stage("smoke", again))
    second = collected(packed(node, tmp_path / "two"), tmp_path / "here")
    assert second.new_stages == ("smoke", "accuracy", "performance")
    assert second.record.stages.smoke == again


def test_two_machines_under_one_release_name_are_refused(node: Path, tmp_path: Path) -> None:
    record = nvidia_record()
    smoke = record.stages.smoke
    assert smoke is not None
    other = record.with_stage("smoke", smoke.model_copy(update={"node": "another node"}))
    RecordStore(tmp_path / "here/out").write(other)
    with pytest.raises(StageRefusedError, match="here and on the node smoke ended differently"):
        collected(packed(node, tmp_path / "back"), tmp_path / "here")
    assert RecordStore(tmp_path / "here/out").read(record.release, "nvidia", "step3") == other


def test_a_part_that_did_not_come_back_is_noticed(node: Path, tmp_path: Path) -> None:
    back = packed(node, tmp_path / "back")
    whole = (back / "records.tgz.00").read_bytes()
    (back / "records.tgz.00").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StageRefusedError, match="the archive is damaged"):
        collected(back, tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_file_that_was_changed_on_the_way_is_named(node: Path, tmp_path: Path) -> None:
    back = packed(node, tmp_path / "back")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run(["tar", "-xzf", back / "records.tgz.00", "-C", unpacked], check=True)
    log = next(unpacked.rglob("accuracy.log"))
    log.write_text("better\n")
    names = [path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()]
    subprocess.run(["tar", "-czf", back / "records.tgz.00", "-C", unpacked, *names], check=True)
    with pytest.raises(StageRefusedError) as caught:
        collected(back, tmp_path / "here")
    assert log.relative_to(unpacked).as_posix() in str(caught.value)


def test_a_cell_that_the_matrix_does_not_have_is_refused(node: Path, tmp_path: Path) -> None:
    with pytest.raises(StageRefusedError, match="the matrix has no cell nvidia/step3"):
        collect(packed(node, tmp_path / "back"), root=tmp_path / "here", cells={"cpu/smollm2"})


def test_a_folder_without_an_archive_is_a_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing called records\.tgz\.\* is in this folder"):
        collect(tmp_path, root=tmp_path, cells=CELLS)
