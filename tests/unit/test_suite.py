"""What a cell's stacks are asked, and that every benchmark's items reach whoever asks them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.accuracy_result import ItemRow
from pipeline.benchmark import Benchmark
from pipeline.canonical import sha256_file
from pipeline.cell import Cell
from pipeline.cells import cells
from pipeline.errors import StageRefusedError, UsageError, WorldError
from pipeline.matrix_file import read_matrix
from pipeline.project import Project
from pipeline.record import Stages
from pipeline.result_source import ImportedRuns
from pipeline.suite import Places, Suite, prepare_suite
from pipeline.world.benchmark_data import Item
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress
from pipeline.world.evaluators import Evaluators
from tests.projects import ROOT, TOY, edited
from tests.records import cpu_record

NOBODY = Endpoint(base_url="http://127.0.0.1:9", model="toy")
MADE: Stages = cpu_record().stages
NINE = {
    "CMMMU": 900,
    "MMMU": 900,
    "MMLU_Pro_standard": 1730,
    "MMLU_Pro_vision": 1730,
    "MM-Vet v2": 517,
    "OCRBench": 1000,
    "MathVision": 3040,
    "CII-Bench": 765,
    "Blink": 1901,
}


class Asked:
    """An evaluator that answers nothing and notes what it was asked."""

    def __init__(self, *, forgets: int = 0) -> None:
        self.items: list[str] = []
        self.forgets = forgets

    def __call__(
        self,
        endpoint: Endpoint,
        items: Sequence[Item],
        *,
        stack: str,
        concurrency: int,
        seed: int,
        repeat: int,
        temperature: float,
        progress: Progress,
    ) -> tuple[ItemRow, ...]:
        self.items += [item.item for item in items]
        progress(stack, len(items), len(items))
        return tuple(row(item, stack) for item in reversed(items[self.forgets :]))


def row(item: Item, stack: str) -> ItemRow:
    return ItemRow(
        benchmark=item.benchmark,
        item=item.item,
        cluster=item.item,
        stack=stack,
        repeat=0,
        seed=0,
        score=0,
        prompt_sha256="",
        answer="",
        finish_reason="",
        tokens=0,
        error="",
        response_sha256="",
    )


def item(benchmark: str, name: str) -> Item:
    return Item(benchmark=benchmark, item=name, task="choice", prompt="", expected="0")


def ask(
    evaluators: Evaluators, items: Sequence[Item], progress: Progress, stack: str = "s"
) -> tuple[ItemRow, ...]:
    return evaluators(
        NOBODY,
        items,
        stack=stack,
        concurrency=1,
        seed=0,
        repeat=0,
        temperature=0,
        progress=progress,
    )


def test_items_go_to_their_evaluator_and_rows_come_back_in_the_items_order() -> None:
    builtin, harness = Asked(), Asked()
    items = [item("quiz", "1"), item("mmmu", "1"), item("quiz", "2"), item("mmmu", "2")]
    told: list[tuple[int, int]] = []
    found = ask(
        Evaluators(others={"mmmu": harness, "blink": Asked()}, builtin=builtin),
        items,
        lambda _, done, of: told.append((done, of)),
    )
    assert [(one.benchmark, one.item) for one in found] == [
        (one.benchmark, one.item) for one in items
    ]
    assert (builtin.items, harness.items) == (["1", "2"], ["1", "2"])
    assert told == [(2, 4), (4, 4)]


def test_an_evaluator_that_forgets_an_item_is_an_error() -> None:
    evaluators = Evaluators(others={"mmmu": Asked(forgets=1)}, builtin=Asked())
    with pytest.raises(WorldError, match="an evaluator gave no row for 1 items"):
        ask(evaluators, [item("mmmu", "1"), item("mmmu", "2")], lambda *_: None)


def test_the_matrix_has_the_nine_of_the_published_card_under_the_cards_names() -> None:
    matrix = read_matrix(ROOT / "matrix.yaml")
    (step3,) = [cell for cell in cells(matrix) if cell.id == "nvidia/step3"]
    assert {one.title: one.items for one in step3.benchmarks.values()} == NINE
    assert list(step3.benchmarks) == matrix.models["step3"].benchmarks
    judged = [name for name, one in step3.benchmarks.items() if one.judge]
    assert judged == list(step3.gate.advisory) == ["mmvet_v2"]
    pro = {
        one.evaluator.evalscope.variant
        for one in step3.benchmarks.values()
        if one.evaluator.evalscope and one.evaluator.evalscope.task == "mmmu_pro"
    }
    assert pro == {"standard (10 options)", "vision"}


@pytest.mark.parametrize(
    ("evaluator", "fault"),
    [
        (
            "{}",
            "9:16: benchmarks.quiz.evaluator: expected exactly one of builtin, evalscope, imported",
        ),
        (
            "{evalscope: {task: mmmu_pro, data: M, dataset: a/b, max_tokens: 9}}",
            "9:28: benchmarks.quiz.evaluator.evalscope: mmmu_pro needs a variant, no other task has one",
        ),
        (
            "{evalscope: {task: mmmu, shape: cii_bench, data: M, dataset: a/b, max_tokens: 9}}",
            "9:28: benchmarks.quiz.evaluator.evalscope: data of shape cii_bench is for the task general_vmcq",
        ),
        (
            "{evalscope: {task: mmmuu, data: ../M, dataset: a/b, max_tokens: 9}}",
            "9:35: benchmarks.quiz.evaluator.evalscope.task: expected 'blink', ",
        ),
        (
            "{builtin: {task: code, format: human_eval, source: {pypi: a, version: 1.0.0, file: b}}}",
            "9:26: benchmarks.quiz.evaluator.builtin: generated answers need a limit: max_tokens",
        ),
    ],
)
def test_a_wrong_evaluator_is_a_fault_with_its_place(
    tmp_path: Path, evaluator: str, fault: str
) -> None:
    start = TOY.index("    evaluator:\n")
    end = TOY.index("chips:\n")
    text = edited(TOY, (TOY[start:end], f"    evaluator: {evaluator}\n"))
    (tmp_path / "matrix.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_matrix(tmp_path / "matrix.yaml")
    assert f"matrix.yaml:{fault}" in str(caught.value)


def test_what_a_judge_scores_has_to_be_advisory_wherever_it_is_asked(tmp_path: Path) -> None:
    judge = f"    judge: {{model: j, prompt: p, prompt_sha256: '{'0' * 64}'}}\n"
    text = edited(TOY, ("chips:\n", judge + "chips:\n"))
    path = tmp_path / "matrix.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_matrix(path)
    assert (
        "models.poet.benchmarks: quiz is scored by a judge, so it is advisory"
        " (add it to models.poet.gate.advisory)"
    ) in str(caught.value)
    assert "cells.overrides.abacus/poet" in str(caught.value)
    path.write_text(edited(text, ("seed: 0", "seed: 0, advisory: [quiz]")))
    assert read_matrix(path).benchmarks["quiz"].judge is not None


def imported(**more: Any) -> Benchmark:
    spec = {"format": "flagevalmm", "task": "t", "folder": "t", "file": "t_evaluated.json"}
    return Benchmark.model_validate(
        {"title": "T", "license": "MIT", "evaluator": {"imported": spec}, **more}
    )


def prepared(tmp_path: Path, benchmarks: dict[str, Benchmark]) -> Suite:
    (tmp_path / "matrix.yaml").write_text(TOY)
    project = Project(tmp_path, tmp_path / "matrix.yaml")
    (found,) = [cell for cell in project.cells if cell.id == "abacus/poet"]
    cell: Cell = replace(
        found,
        all_benchmarks=benchmarks,
        model=found.model.model_copy(update={"benchmarks": list(benchmarks)}),
        override=found.override.model_copy(update={"benchmarks": None}),
    )
    inputs: Any = None  # only the lock of builtin benchmarks is looked at
    places = Places(share=tmp_path, environments=tmp_path, folder=tmp_path)
    return prepare_suite(
        cell,
        inputs,
        places,
        stages=MADE,
        run_programs=lambda programs: ("passed",) * len(programs),
        say=print,
    )


def result_file(folder: Path, of: str, run: str = "", reason: str = "", **changes: Any) -> Path:
    """One stack's results of `t`, with a sidecar that says it was made by the toy cell's stack, but for `changes`."""
    path = folder / "results" / "t" / of / run / "t_evaluated.json"
    path.parent.mkdir(parents=True)
    answered = {"question_id": 1, "question": "?", "answer": "A", "correct": True, "reason": reason}
    path.write_text(json.dumps([answered]))
    built, weights = MADE.build and MADE.build.result, MADE.weights and MADE.weights.result
    assert built
    assert weights
    dtype = {"slow": "float32", "fast": "bfloat16"}[of]
    source = {
        "result_sha256": sha256_file(path),
        "stack": of,
        "image": built.model.config_digest,
        "weights_sha256": weights.sha256,
        "serve": {"dtype": dtype, "enforce_eager": True, "max_model_len": 2048, "max_num_seqs": 4},
        "harness": "flagevalmm",
        "harness_version": "0.3.5",
        "data": "example/t@1",
        "generation": {"temperature": 0, "max_tokens": 64, "concurrency": 4, "seed": 42},
        **changes,
    }
    path.with_name("t_evaluated.json.source.json").write_text(json.dumps(source))
    return path


def runs_of(tmp_path: Path) -> ImportedRuns:
    return prepared(tmp_path, {"t": imported(items=1)}).imported["t"]


def test_a_suite_has_items_and_hashes_of_where_they_come_from(tmp_path: Path) -> None:
    for stack in ("slow", "fast"):
        result_file(tmp_path, stack)
    suite = prepared(tmp_path, {"t": imported(items=1)})
    assert [one.item for one in suite.items["t"]] == ["1"]
    assert [one.is_text for one in suite.items["t"]] == [False]
    assert [one.path for one in suite.data] == ["results/t"]
    (answered,) = ask(suite.evaluator, suite.items["t"], lambda *_: None, "slow")
    assert answered.score == 1


def test_results_with_the_source_of_the_cells_own_stacks_may_decide(tmp_path: Path) -> None:
    result_file(tmp_path, "slow")
    built = MADE.build and MADE.build.result
    assert built
    result_file(tmp_path, "fast", image=built.model.manifest_digest)
    suite = prepared(tmp_path, {"t": imported()})
    (row,) = ask(suite.evaluator, suite.items["t"], lambda *_: None, "slow")

    assert suite.imported["t"].doubts == ()
    assert [len(one) for one in suite.imported["t"].sources.values()] == [1, 1]
    assert row.seed == 42  # the sidecar's, not the policy's


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"image": f"sha256:{'1' * 64}"}, f"is of image sha256:{'1' * 64}, this release's is "),
        ({"weights_sha256": "2" * 64}, f"is of weights {'2' * 64}, expected "),
        ({"stack": "slow"}, "is of stack slow, expected fast"),
        ({"harness": "inspect"}, "is of harness inspect, expected flagevalmm"),
        ({"result_sha256": "3" * 64}, "is another file than its source is said of (SHA-256 "),
        (
            {"serve": {"dtype": "float16", "max_model_len": 2048, "enforce_eager": True}},
            "is of a server with dtype float16, the stack has bfloat16",
        ),
    ],
)
def test_a_source_that_is_not_of_the_cells_stack_or_of_the_file_is_doubted(
    tmp_path: Path, changes: dict[str, Any], doubt: str
) -> None:
    result_file(tmp_path, "slow")
    result_file(tmp_path, "fast", **changes)

    assert runs_of(tmp_path).doubts[0].startswith(f"fast/t_evaluated.json {doubt}")


def test_an_argument_that_the_source_leaves_out_is_doubted(tmp_path: Path) -> None:
    result_file(tmp_path, "slow")
    result_file(tmp_path, "fast", serve={"dtype": "bfloat16", "enforce_eager": True, "seed": 1})

    assert runs_of(tmp_path).doubts == (
        "fast/t_evaluated.json is of a server with max_model_len (not stated), the stack has 2048",
        "fast/t_evaluated.json is of a server with max_num_seqs (not stated), the stack has 4",
        "fast/t_evaluated.json is of a server with seed 1, the stack has (not stated)",
    )


def test_results_without_a_source_are_doubted_and_have_no_seed(tmp_path: Path) -> None:
    result_file(tmp_path, "slow")
    path = result_file(tmp_path, "fast")
    path.with_name(f"{path.name}.source.json").unlink()
    suite = prepared(tmp_path, {"t": imported()})
    (row,) = ask(suite.evaluator, suite.items["t"], lambda *_: None, "fast")

    assert suite.imported["t"].doubts == (
        "fast/t_evaluated.json has no source.json beside it, so nobody knows what answered",
    )
    assert row.seed is None


def test_a_source_that_is_half_or_of_another_form_is_refused(tmp_path: Path) -> None:
    result_file(tmp_path, "slow")
    path = result_file(tmp_path, "fast", image="latest")
    source = path.with_name(f"{path.name}.source.json")
    with pytest.raises(WorldError) as caught:
        runs_of(tmp_path)
    assert str(caught.value) == (
        f"{source}: image: String should match pattern '^sha256:[0-9a-f]{{64}}$'\n"
        "expected the source of a result file (docs/evaluators.md, Imported)"
    )
    source.write_text(source.read_text()[:-9])
    with pytest.raises(WorldError, match="no JSON at column"):
        runs_of(tmp_path)


def test_a_further_run_is_a_file_of_both_stacks(tmp_path: Path) -> None:
    result_file(tmp_path, "slow")
    result_file(tmp_path, "fast")
    result_file(tmp_path, "slow", "run-2", "said otherwise")
    assert (runs_of(tmp_path).runs, runs_of(tmp_path).next_file) == (
        1,
        "results/t/<stack>/run-2/t_evaluated.json",
    )
    again = result_file(tmp_path, "fast", "run-2", "said otherwise", weights_sha256="2" * 64)
    found = runs_of(tmp_path)
    assert (found.runs, len(found.sources["fast"])) == (2, 2)
    assert found.doubts[0].startswith("fast/run-2/t_evaluated.json is of weights 222")
    again.write_bytes((again.parent.parent / again.name).read_bytes())
    with pytest.raises(WorldError, match=r"is a copy of .*fast/t_evaluated\.json"):
        runs_of(tmp_path)


def test_a_suite_is_refused_without_benchmarks_or_results(tmp_path: Path) -> None:
    with pytest.raises(StageRefusedError, match="the cell names no benchmark"):
        prepared(tmp_path, {})
    with pytest.raises(WorldError, match="the data folder is missing or empty"):
        prepared(tmp_path, {"t": imported()})
