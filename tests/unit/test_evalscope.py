"""evalscope without evalscope: what it is told, and what its own files become. They were written by evalscope 1.14.1 in
`nox -s trials`, asked of a stand-in server; questions and pictures are ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.accuracy_result import ItemRow
from pipeline.benchmark import Evalscope
from pipeline.errors import WorldError
from pipeline.world.benchmark_data import Item, chance_of
from pipeline.world.data_folder import copy_folder, folder_hash
from pipeline.world.endpoint import Endpoint
from pipeline.world.evalscope_rows import listed_items, rows
from pipeline.world.evalscope_task import GENERAL_PROMPT, Sampling, environment, task_config
from tests.projects import ROOT
from tests.trials.evalscope_record import held_files, read_record
from tests.trials.test_evalscope import CASES

RECORDED = ROOT / "tests/fixtures/evalscope"
HERE = Endpoint(base_url="http://127.0.0.1:9010", model="step3-nvidia-flagos", timeout_s=300)


def spec(task: str = "mmmu", **more: Any) -> Evalscope:
    return Evalscope.model_validate(
        {"task": task, "data": "MMMU", "dataset": "ours", "max_tokens": 64, **more}
    )


def config(asked: Evalscope) -> dict[str, Any]:
    sampling = Sampling(concurrency=8, seed=3, temperature=0)
    return task_config(asked, HERE, sampling, data=Path("/copy"), work=Path("/work/native"))


def work(folder: Path) -> Path:
    shutil.copytree(RECORDED / "mmmu", folder / "work")
    return folder / "work"


def items() -> tuple[Item, ...]:
    return listed_items("mmmu", RECORDED / "mmmu" / "items.jsonl", 64)


def read(folder: Path, asked: tuple[Item, ...] | None = None) -> tuple[ItemRow, ...]:
    return rows(asked or items(), folder, "mmmu", stack="native", seed=7)


def failure(ask: Callable[[], object]) -> str:
    with pytest.raises(WorldError) as caught:
        ask()
    return str(caught.value)


def test_evalscope_is_told_everything_that_the_gate_depends_on() -> None:
    assert config(spec(subsets=("Art", "Math"))) == {
        "model": "step3-nvidia-flagos",
        "api_url": "http://127.0.0.1:9010/v1",
        "api_key": "EMPTY",
        "eval_type": "openai_api",
        "datasets": ["mmmu"],
        "dataset_args": {"mmmu": {"local_path": "/copy", "subset_list": ["Art", "Math"]}},
        "eval_batch_size": 8,
        "generation_config": {
            "temperature": 0,
            "seed": 3,
            "max_tokens": 64,
            "timeout": 300,
            "retries": 2,
            "retry_interval": 5,
            "stream": False,
        },
        "work_dir": "/work/native",
        "no_timestamp": True,
        "use_cache": None,
        "ignore_errors": False,
        "judge": {"strategy": "rule"},
        "collect_perf": False,
        "seed": 3,
    }


def test_mmmu_pro_has_variants_and_the_general_tasks_an_english_prompt() -> None:
    pro = config(spec("mmmu_pro", variant="vision"))["dataset_args"]["mmmu_pro"]
    assert pro["extra_params"] == {"dataset_format": "vision"}
    for task in ("general_mcq", "general_vmcq"):
        general = config(spec(task))["dataset_args"][task]
        assert general["prompt_template"] == GENERAL_PROMPT
    assert GENERAL_PROMPT.isascii()


def test_evalscope_has_no_way_to_a_hub() -> None:
    told = environment(Path("/caches"))
    assert {told[name] for name in told if name.endswith("_OFFLINE")} == {"1"}
    assert told["HF_HOME"] == "/caches/huggingface"


def test_listed_samples_are_items_without_text_whose_choices_count() -> None:
    listed = items()
    assert [item.item for item in listed] == [*(f"Art/{n}" for n in range(5)), "Math/0", "Math/1"]
    assert {len(item.prompt) for item in listed} == {64}
    assert [len(item.choices) for item in listed] == [4, 4, 4, 4, 4, 0, 0]
    assert chance_of(listed) == pytest.approx(5 * 0.25 / 7)
    assert len({item.cluster for item in listed}) == 7
    assert all(item.is_written for item in listed)  # choices too: they are answered in words


def test_rows_are_paired_by_key_although_the_lines_are_in_another_order(tmp_path: Path) -> None:
    folder = work(tmp_path)
    lines = (folder / "predictions/toy/mmmu_Art.jsonl").read_text().splitlines()
    written = [json.loads(line)["index"] for line in lines]
    assert sorted(written) != written
    found = read(folder)
    assert [row.item for row in found] == [item.item for item in items()]
    assert [row.score for row in found] == [1, 0, 1, 0, 0, 0, 0]
    assert {row.answer for row in found if not row.error} == {"A"}
    assert [row.prompt_sha256 for row in found] == [item.prompt for item in items()]


def test_an_overflow_of_the_context_is_an_error_and_not_a_wrong_answer(tmp_path: Path) -> None:
    (row,) = [row for row in read(work(tmp_path)) if row.error]
    assert row.item == "Art/4"
    assert row.error == "the prompt is longer than the model's context"
    assert (row.score, row.answer, row.finish_reason) == (0, "", "model_length")


def change_line(path: Path, index: int, **change: Any) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [{**line, **(change if line["index"] == index else {})} for line in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_line(path: Path, index: int) -> None:
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["index"] != index]
    path.write_text("".join(f"{line}\n" for line in lines))


def test_samples_that_were_left_out_stay_as_errors(tmp_path: Path) -> None:
    folder = work(tmp_path)
    drop_line(folder / "predictions/toy/mmmu_Art.jsonl", 0)
    drop_line(folder / "reviews/toy/mmmu_Art.jsonl", 1)
    errors = {row.item: row.error for row in read(folder)}
    assert errors["Art/0"] == "evalscope has no answer to it"
    assert errors["Art/1"] == "evalscope has no score for it"
    assert errors["Art/2"] == ""


@pytest.mark.parametrize(
    ("score", "error"),
    [
        ({"value": {}, "status": "excluded"}, "evalscope could not score it: excluded"),
        (
            {"value": {"accuracy": 1}, "status": "degraded"},
            "evalscope could not score it: degraded",
        ),
        ({"value": {"accuracy": 3.0}}, "evalscope gave it the score 3"),
        ({"value": {"other": 0.0, "acc": 1.0}, "main_score_name": "acc"}, ""),
    ],
)
def test_a_score_that_is_none_is_an_error(
    tmp_path: Path, score: dict[str, Any], error: str
) -> None:
    folder = work(tmp_path)
    sample = {"sample_id": 1, "generation_index": 0, "score": score}
    change_line(folder / "reviews/toy/mmmu_Art.jsonl", 1, sample_score=sample)
    row = next(row for row in read(folder) if row.item == "Art/1")
    assert row.error == error
    assert row.score == (0 if error else 1)


def test_an_answer_that_the_limit_cut_off_says_so(tmp_path: Path) -> None:
    folder = work(tmp_path)
    path = folder / "predictions/toy/mmmu_Art.jsonl"
    path.write_text(
        path.read_text().replace('"stop_reason": "stop"', '"stop_reason": "max_tokens"')
    )
    assert {row.finish_reason for row in read(folder) if row.item in ("Art/0", "Art/1")} == {
        "length"
    }


def test_half_a_file_a_sample_twice_and_one_that_nobody_asked_are_refused(tmp_path: Path) -> None:
    folder = work(tmp_path)
    path = folder / "reviews/toy/mmmu_Math.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert failure(lambda: read(folder)).startswith(f"{path}:2: the last line has no end")
    path.write_bytes(whole.replace(b'"sample_id": 1', b'"sample_id": 0'))
    assert failure(lambda: read(folder)).startswith(
        f"{path}: sample 0, generation 0, is there twice"
    )
    path.write_bytes(whole.replace(b'"generation_index": 0', b'"generation_index": 1'))
    assert "evalscope answered Math/" in failure(lambda: read(folder))
    path.write_bytes(whole.replace(b'"sample_score"', b'"score"'))
    assert failure(lambda: read(folder)) == (
        f"{path}:1: sample_score: Field required\nexpected one of evalscope 1.14.1's reviews"
    )


def test_a_data_folder_is_hashed_by_content_and_its_copy_can_lose_files(tmp_path: Path) -> None:
    folder, copy = tmp_path / "data", tmp_path / "copy"
    (folder / "images").mkdir(parents=True)
    (folder / "dataset_infos.json").write_text("{}")
    (folder / "images" / "1.png").write_bytes(b"png")
    before = folder_hash(folder, "benchmarks/data")
    assert (before.path, before.size_bytes) == ("benchmarks/data", 5)
    copy_folder(folder, copy)
    (copy / "dataset_infos.json").unlink()
    assert folder_hash(folder, "benchmarks/data") == before
    assert folder_hash(copy, "benchmarks/data") != before
    shutil.rmtree(copy)
    assert "the data folder is missing or empty" in failure(lambda: folder_hash(copy, "x"))


def test_the_committed_trial_covers_every_task_and_is_of_this_code() -> None:
    record = read_record()
    assert {run.task for run in record.runs} == set(CASES)
    assert record.files == held_files(), "run nox -s trials -- -k evalscope"
    by_task: dict[str, set[tuple[int, int, int]]] = {}
    for run in record.runs:
        by_task.setdefault(run.task, set()).add((run.items, run.right, run.errors))
    assert {task for task, seen in by_task.items() if len(seen) != 1} == set()  # stacks agree
    assert [run.errors for run in record.runs if run.task == "mmmu"] == [1, 1]
