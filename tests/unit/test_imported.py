"""Results of other harnesses. The files of lm-eval 0.4.13 and inspect-ai 0.3.285 were written by them, asked of a
stand-in server (inspect's were cut to what is read); those of FlagEvalMM are written after its source (fef27ec)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.accuracy_result import ItemRow
from pipeline.benchmark import Imported
from pipeline.errors import WorldError
from pipeline.world.endpoint import Endpoint
from pipeline.world.imported import ImportedBenchmark
from pipeline.world.result_files import kept_answer
from tests.projects import ROOT

RESULTS = ROOT / "tests/fixtures/results"
LM_EVAL = "samples_toy_signs_2026-11-24T07-32-32.989259.jsonl"
NOBODY = Endpoint(base_url="http://127.0.0.1:9", model="toy")


def imported(folder: Path, **spec: Any) -> ImportedBenchmark:
    asked = {"task": "toy_signs", "folder": "toy", **spec}
    return ImportedBenchmark(name="toy", spec=Imported.model_validate(asked), folder=folder)


def lm_eval(folder: Path, **spec: Any) -> ImportedBenchmark:
    return imported(folder, format="lm-eval", file=LM_EVAL, **{"filter": "strict", **spec})


def inspect(folder: Path, **spec: Any) -> ImportedBenchmark:
    return imported(folder, **{"format": "inspect", "file": "inspect_toy_signs.json", **spec})


def flagevalmm(folder: Path) -> ImportedBenchmark:
    return imported(folder, format="flagevalmm", task="blink_val", file="blink_val_evaluated.json")


def stack_folder(folder: Path, *stacks: str) -> Path:
    for stack in stacks:
        shutil.copytree(RESULTS, folder / stack)
    return folder


def rows_of(benchmark: ImportedBenchmark, stack: str, *stacks: str) -> tuple[ItemRow, ...]:
    items = benchmark.items(stacks or (stack,))
    return benchmark(
        NOBODY,
        items,
        stack=stack,
        concurrency=1,
        seed=0,
        repeat=0,
        temperature=0,
        progress=lambda *_: None,
    )


def failure(ask: Callable[[], object]) -> str:
    with pytest.raises(WorldError) as caught:
        ask()
    return str(caught.value)


def predictions(folder: Path, *changes: dict[str, Any]) -> Path:
    """FlagEvalMM's file of one stack, one prediction for each change."""
    whole = [
        {
            "question_id": f"val_{number}",
            "question": f"How many, number {number}?",
            "answer": "A",
            "reason": "",
            "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
            "raw_answer": "(A) one",
            "correct": number % 2 == 0,
            "label": "A",
            **change,
        }
        for number, change in enumerate(changes)
    ]
    folder.mkdir(parents=True)
    path = folder / "blink_val_evaluated.json"
    path.write_text(json.dumps(whole, indent=2, ensure_ascii=False))
    return path


def test_samples_of_lm_eval_become_rows(tmp_path: Path) -> None:
    rows = rows_of(lm_eval(stack_folder(tmp_path, "a")), "a")
    assert [(row.item, row.score, row.answer, row.error) for row in rows] == [
        ("0", 1, "A", ""), ("1", 0, "A", ""), ("2", 1, "A", ""), ("3", 0, "A", ""),
    ]  # fmt: skip
    assert rows[0].prompt_sha256.startswith("ed0dec849bbc")
    assert len({row.prompt_sha256 for row in rows}) == 4


def test_choices_of_lm_eval_by_likelihood_keep_the_likeliest_and_were_not_written(
    tmp_path: Path,
) -> None:
    folder = stack_folder(tmp_path, "a")
    lines = (folder / "a" / LM_EVAL).read_text().splitlines()
    samples = [json.loads(line) for line in lines if json.loads(line)["filter"] == "strict"]
    chosen = [["-3.5", "False"], ["-0.25", "True"]]
    changed = [{**sample, "filtered_resps": chosen, "resps": [chosen]} for sample in samples]
    (folder / "a" / LM_EVAL).write_text("".join(f"{json.dumps(one)}\n" for one in changed))
    benchmark = lm_eval(folder, choices=2)
    assert {row.answer for row in rows_of(benchmark, "a")} == {"1"}
    assert [row.score for row in rows_of(benchmark, "a")] == [1, 0, 1, 0]
    assert not any(item.is_written for item in benchmark.items(("a",)))


def test_a_filter_of_lm_eval_has_to_be_named_where_there_are_two(tmp_path: Path) -> None:
    benchmark = lm_eval(stack_folder(tmp_path, "a"), filter=None)
    assert failure(lambda: rows_of(benchmark, "a")) == (
        f"{tmp_path}/a/{LM_EVAL}: has the filters strict, whole\nexpected one of them\n"
        "hint: name one as evaluator.imported.filter of the benchmark"
    )


def test_a_metric_that_lm_eval_did_not_write_is_named(tmp_path: Path) -> None:
    benchmark = lm_eval(stack_folder(tmp_path, "a"), metric="acc")
    assert "has the metrics exact_match\nexpected acc" in failure(lambda: rows_of(benchmark, "a"))


def test_half_a_line_of_lm_eval_is_named_with_its_number(tmp_path: Path) -> None:
    path = stack_folder(tmp_path, "a") / "a" / LM_EVAL
    path.write_bytes(path.read_bytes()[:-40])
    assert failure(lambda: rows_of(lm_eval(tmp_path), "a")) == (
        f"{path}:8: the last line has no end\n"
        "hint: the file is not whole: the harness was ended while it wrote, or is still writing"
    )


def test_a_line_that_is_no_sample_is_named_with_what_was_expected(tmp_path: Path) -> None:
    path = stack_folder(tmp_path, "a") / "a" / LM_EVAL
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"doc_id": 2', '"doc_id": "two"')
    path.write_text("".join(lines))
    assert failure(lambda: rows_of(lm_eval(tmp_path), "a")) == (
        f"{path}:3: doc_id: Input should be a valid integer, unable to parse string as an integer\n"
        "expected a sample of lm-eval with doc_id, filter, metrics and their values"
    )


def test_a_log_of_inspect_becomes_rows_and_a_failed_sample_stays(tmp_path: Path) -> None:
    rows = rows_of(inspect(stack_folder(tmp_path, "a")), "a")
    assert [(row.item, row.score, row.error, row.finish_reason) for row in rows] == [
        ("sign-0", 1, "", "stop"),
        ("sign-1", 0, "", "stop"),
        ("sign-2", 1, "", "stop"),
        ("sign-3", 0, "the sample failed", ""),
    ]
    assert rows[0].answer.startswith("sha256:")  # no text of an answer
    assert rows[0].tokens == 12


def test_a_scorer_of_inspect_that_names_no_answer_is_still_a_score(tmp_path: Path) -> None:
    folder = stack_folder(tmp_path, "a")
    path = folder / "a/inspect_toy_signs.json"
    log = json.loads(path.read_text())
    for sample in log["samples"]:
        for score in (sample.get("scores") or {}).values():
            score["answer"] = None
    path.write_text(json.dumps(log))
    rows = rows_of(inspect(folder), "a")
    assert {row.answer for row in rows if not row.error} == {"unnamed"}
    assert sum(row.score for row in rows) > 0


def test_a_log_of_inspect_that_was_interrupted_is_no_result(tmp_path: Path) -> None:
    benchmark = inspect(stack_folder(tmp_path, "a"), file="inspect_interrupted.json")
    assert failure(lambda: rows_of(benchmark, "a")) == (
        f"{tmp_path}/a/inspect_interrupted.json: the evaluation ended as error with 4 of an unknown"
        " number samples\nexpected success and all samples\n"
        "hint: run it again to its end (inspect eval-retry)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": []}, "ended as success with 0 of 4 samples"),
        ({"eval": {"task": "ns/other"}}, "is a log of ns/other\nexpected one of toy_signs"),
        ({"eval": {}}, "eval.task: Field required\nexpected a log of inspect-ai"),
    ],
)
def test_a_log_of_inspect_that_is_another_or_not_whole_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = stack_folder(tmp_path, "a") / "a" / "inspect_toy_signs.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert message in failure(lambda: rows_of(inspect(tmp_path), "a"))


def test_a_scorer_of_inspect_has_to_be_one_that_scored(tmp_path: Path) -> None:
    benchmark = inspect(stack_folder(tmp_path, "a"), metric="choice")
    assert "sample sign-0 has scores of match" in failure(lambda: rows_of(benchmark, "a"))


def test_predictions_of_flagevalmm_become_rows_and_rejected_ones_stay(tmp_path: Path) -> None:
    rejected = {"answer": "Error code 400", "raw_answer": "Error code 400", "correct": None}
    judged = {"correct": None, "score": 0.7, "answer": "a long truth of the benchmark"}
    lost = {"correct": None, "score": 0.0, "val_success": False}
    predictions(tmp_path / "a", {}, {}, rejected, judged, lost)
    rows = rows_of(flagevalmm(tmp_path), "a")
    assert [(row.item, row.score, row.error) for row in rows] == [
        ("val_0", 1, ""),
        ("val_1", 0, ""),
        ("val_2", 0, "the request was rejected"),
        ("val_3", 0.7, ""),
        ("val_4", 0, "the judge gave no score"),
    ]
    assert [row.answer[:7] for row in rows] == ["A", "A", "", "sha256:", ""]
    assert rows[0].tokens == 3


def test_answers_of_flagevalmm_that_were_not_evaluated_are_refused(tmp_path: Path) -> None:
    path = predictions(tmp_path / "a", {}, {"correct": None})
    assert failure(lambda: rows_of(flagevalmm(tmp_path), "a")) == (
        f"{path}: question val_1 has neither correct nor score\n"
        "expected a prediction of FlagEvalMM with question_id, question, answer and correct (or score)\n"
        "hint: blink_val.json has answers only: run the evaluation too"
    )


def test_a_prediction_of_flagevalmm_in_another_form_is_named_with_its_line(tmp_path: Path) -> None:
    path = predictions(tmp_path / "a", {}, {"question_id": None})
    text = failure(lambda: rows_of(flagevalmm(tmp_path), "a"))
    line = 1 + path.read_text()[: path.read_text().index('"question_id": null')].count("\n")
    assert text.startswith(f"{path}:{line - 1}: question_id")  # its object begins a line before


def test_half_a_file_of_flagevalmm_is_named_with_the_line_where_it_ends(tmp_path: Path) -> None:
    path = predictions(tmp_path / "a", {}, {})
    path.write_text(path.read_text()[:-60])
    text = failure(lambda: rows_of(flagevalmm(tmp_path), "a"))
    assert text.startswith(f"{path}:{path.read_text().count(chr(10)) + 1}: no JSON at column ")
    assert "expected a prediction of FlagEvalMM" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", ":1: no JSON array\nexpected a prediction of FlagEvalMM"),
        ("[]", ": the file has no results"),
    ],
)
def test_a_file_of_flagevalmm_without_predictions_is_refused(
    tmp_path: Path, content: str, message: str
) -> None:
    path = predictions(tmp_path / "a")
    path.write_text(content)
    assert f"{path}{message}" in failure(lambda: rows_of(flagevalmm(tmp_path), "a"))


def test_totals_of_flagevalmm_are_no_rows(tmp_path: Path) -> None:
    benchmark = imported(
        tmp_path, format="flagevalmm", task="blink_val", file="blink_val_result.json"
    )
    assert "expected blink_val_evaluated.json; blink_val_result.json has totals only" in failure(
        lambda: rows_of(benchmark, "a")
    )


def test_an_item_that_one_stack_left_out_is_an_error_there(tmp_path: Path) -> None:
    predictions(tmp_path / "a", {}, {}, {})
    predictions(tmp_path / "b", {}, {})
    rows = rows_of(flagevalmm(tmp_path), "b", "b", "a")
    assert [row.error for row in rows] == ["", "", "the result file has no such item"]
    assert [row.score for row in rows] == [1, 0, 0]


def test_an_item_twice_a_missing_file_and_another_number_of_items_are_refused(
    tmp_path: Path,
) -> None:
    path = predictions(tmp_path / "a", {"question_id": 5}, {"question_id": 5})
    assert failure(lambda: rows_of(flagevalmm(tmp_path), "a")) == (
        f"{path}: the item 5 is there twice"
    )
    missing = tmp_path / "b" / "blink_val_evaluated.json"
    assert failure(lambda: rows_of(flagevalmm(tmp_path), "b")) == (
        f"{missing}: cannot be read: No such file or directory"
    )
    predictions(tmp_path / "c", {}, {})
    assert "the results have 2 items, matrix.yaml expects 3" in failure(
        lambda: flagevalmm(tmp_path).items(("c",), 3)
    )


def test_a_score_that_is_no_share_is_an_error(tmp_path: Path) -> None:
    predictions(tmp_path / "a", {"correct": 1.5}, {"correct": float("nan")})
    rows = rows_of(flagevalmm(tmp_path), "a")
    assert [(row.score, row.error) for row in rows] == [
        (0, "the score is 1.5"), (0, "the score is nan"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (None, ""),
        (" B ", "B"),
        ("ABD", "ABD"),
        ("-1,234.5", "-1,234.5"),
        ("对", "sha256:"),
        ("the boy who lived", "sha256:"),
    ],
)
def test_rows_keep_letters_and_numbers_and_hash_all_other_text(text: str, kept: str) -> None:
    assert kept_answer(text)[:7] == kept[:7]
    assert kept_answer(text) == kept or kept.startswith("sha256:")
