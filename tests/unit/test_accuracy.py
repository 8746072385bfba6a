from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.accuracy_result import AccuracyResult, ItemRow
from pipeline.canonical import canonical, sha256_file
from pipeline.errors import StageRefusedError, WorldError
from pipeline.gate.verdict import judge_again
from pipeline.policy import Gate
from pipeline.results import FileHash
from pipeline.rows import stored_rows
from pipeline.stages.accuracy import AccuracyTask, measure_accuracy
from pipeline.world.benchmark_data import Item
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress
from tests.fakes_server import Behaviour, StandInServer

SECRET_TEXT = "a question whose text must not be stored"


def items_of(benchmark: str, count: int) -> tuple[Item, ...]:
    return tuple(
        Item(
            benchmark=benchmark,
            item=f"{benchmark}-{number:03}",
            task="choice",
            prompt=SECRET_TEXT,
            choices=("yes", "no"),
            is_written=False,
            expected="0",
        )
        for number in range(count)
    )


@dataclass
class Stacks:
    """Fake server and evaluator: answers everything right but the last `wrong` items of a stack."""

    wrong: dict[str, int] = field(default_factory=dict)
    error: str = ""
    served: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    asked: list[tuple[str, int, str, int]] = field(
        default_factory=list
    )  # repeat, first item, items

    @contextmanager
    def serve(self, stack: str) -> Iterator[Endpoint]:
        self.served.append(stack)
        yield Endpoint(base_url=f"http://{stack}", model="toy")
        self.stopped.append(stack)

    def evaluate(
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
        assert temperature == 0
        self.asked.append((stack, repeat, items[0].item, len(items)))
        assert endpoint.base_url == f"http://{stack}"
        progress(stack, len(items), len(items))
        ordered = sorted(item.benchmark + item.item for item in items)
        right = len(items) - self.wrong.get(stack, 0) if repeat == 0 else len(items)
        return tuple(
            ItemRow(
                benchmark=item.benchmark,
                item=item.item,
                cluster=item.item,
                stack=stack,
                repeat=repeat,
                seed=seed,
                score=1 if ordered.index(item.benchmark + item.item) < right else 0,
                prompt_sha256="same",
                answer="0",
                finish_reason="length",
                tokens=concurrency,
                error=self.error,
                response_sha256=stack,
            )
            for item in items
        )


GATE = Gate(alpha=0.05, margin=0.08, power_margins=1, looks=(1,), concurrency=4, seed=7)


def task_in(folder: Path) -> AccuracyTask:
    return AccuracyTask(
        key="image-1",
        reference="float32",
        candidate="bfloat16",
        items={"hellaswag": items_of("hellaswag", 60), "truthfulqa": items_of("truthfulqa", 60)},
        data=(FileHash(path="cases.jsonl", sha256="0" * 64, size_bytes=9),),
        gate=GATE,
        conditions={"float32": {"image": "one"}, "bfloat16": {"image": "one"}},
        items_file=folder / "items.jsonl",
    )


def ticking() -> Callable[[], float]:
    times = iter([0.0, 5.0, 100.0, 107.0, 200.0, 203.0, 300.0, 304.0])
    return lambda: next(times)


def measure(task: AccuracyTask, stacks: Stacks) -> AccuracyResult:
    return measure_accuracy(
        task, stacks.serve, lambda *_: None, evaluator=stacks.evaluate, clock=ticking()
    )


def test_reference_and_candidate_are_served_in_turn_and_judged(tmp_path: Path) -> None:
    stacks = Stacks()
    result = measure(task_in(tmp_path), stacks)

    assert stacks.served == stacks.stopped == ["float32", "bfloat16"]
    assert result.verdict.status == "pass"
    assert [one.n for one in result.verdict.benchmarks] == [60, 60]
    assert [one.chance for one in result.verdict.benchmarks] == [0.5, 0.5]
    assert result.stack_seconds == {"float32": 5.0, "bfloat16": 7.0}
    assert result.settings == {
        "concurrency": 4,
        "seed": 7,
        "temperature": 0,
        "hellaswag.max_tokens": 1,
        "truthfulqa.max_tokens": 1,
    }
    assert result.data == task_in(tmp_path).data


def test_a_worse_candidate_fails(tmp_path: Path) -> None:
    assert measure(task_in(tmp_path), Stacks(wrong={"bfloat16": 12})).verdict.status == "fail"


def test_items_jsonl_holds_one_canonical_line_per_item_and_stack_and_no_text(
    tmp_path: Path,
) -> None:
    task = task_in(tmp_path)
    result = measure(task, Stacks())
    data = task.items_file.read_bytes()
    lines = data.splitlines()

    assert len(lines) == 2 * 120
    assert all(canonical(json.loads(line)) == line for line in lines)
    assert [json.loads(line)["stack"] for line in lines] == ["float32"] * 120 + ["bfloat16"] * 120
    assert ItemRow.model_validate_json(lines[0]).item == "hellaswag-000"
    assert (result.items_file, result.items_sha256) == ("items.jsonl", sha256_file(task.items_file))
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert SECRET_TEXT.encode() not in written


def killed_at_the_candidate(task: AccuracyTask) -> None:
    """A run that is interrupted when the reference has answered."""

    @contextmanager
    def serve(stack: str) -> Iterator[Endpoint]:
        if stack == "bfloat16":
            raise KeyboardInterrupt
        yield Endpoint(base_url=f"http://{stack}", model="toy")

    with pytest.raises(KeyboardInterrupt):
        measure_accuracy(task, serve, lambda *_: None, evaluator=Stacks().evaluate, clock=ticking())


def test_a_killed_run_goes_on_with_the_stack_that_was_not_done(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    killed_at_the_candidate(task)
    assert not task.items_file.exists()
    second = Stacks()
    resumed = measure(task, second)

    assert second.served == ["bfloat16"]
    assert resumed.stack_seconds == {"float32": 5.0, "bfloat16": 5.0}
    assert resumed.verdict == measure(task_in(tmp_path / "fresh"), Stacks()).verdict


@pytest.mark.parametrize(
    "change",
    [
        {"key": "image-2"},
        {"gate": GATE.model_copy(update={"seed": 8})},
        {"gate": GATE.model_copy(update={"concurrency": 8})},
        {
            "items": {
                "hellaswag": items_of("hellaswag", 61),
                "truthfulqa": items_of("truthfulqa", 9),
            }
        },
    ],
)
def test_rows_of_another_way_of_asking_are_not_used_again(
    tmp_path: Path, change: dict[str, object]
) -> None:
    killed_at_the_candidate(task_in(tmp_path))
    again = Stacks()
    measure(replace(task_in(tmp_path), **change), again)  # type: ignore[arg-type]

    assert again.served == ["float32", "bfloat16"]


def test_rows_are_used_again_under_another_policy(tmp_path: Path) -> None:
    killed_at_the_candidate(task_in(tmp_path))
    again = Stacks()
    stricter = replace(task_in(tmp_path), gate=GATE.model_copy(update={"margin": 0.07}))
    measure(stricter, again)

    assert again.served == ["bfloat16"]


@pytest.mark.parametrize("left", [b"", b"{\n", b'{"key":"x"}\n'])
def test_a_file_that_is_not_ours_is_measured_anew(tmp_path: Path, left: bytes) -> None:
    killed_at_the_candidate(task_in(tmp_path))
    next(tmp_path.glob("items.float32.*")).write_bytes(left)
    again = Stacks()
    measure(task_in(tmp_path), again)

    assert again.served == ["float32", "bfloat16"]


def test_a_file_with_fewer_rows_is_measured_anew_where_they_are_missing(tmp_path: Path) -> None:
    killed_at_the_candidate(task_in(tmp_path))
    path = next(tmp_path.glob("items.float32.*"))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    again = Stacks()
    measure(task_in(tmp_path), again)

    assert again.asked[0] == ("float32", 0, "truthfulqa-000", 60)


def test_a_finished_stage_leaves_its_rows_and_nothing_that_looks_unfinished(
    tmp_path: Path,
) -> None:
    task = task_in(tmp_path)
    measure(task, Stacks())
    again = Stacks()
    measure(task, again)

    assert [path.name for path in tmp_path.iterdir()] == ["items.jsonl"]
    assert again.served == ["float32", "bfloat16"]


def test_stored_rows_are_judged_again_without_serving(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    first = measure(task, Stacks())
    again = Stacks()
    stricter = replace(task, gate=GATE.model_copy(update={"margin": 0.02}))
    second = measure_accuracy(
        stricter,
        again.serve,
        lambda *_: None,
        evaluator=again.evaluate,
        known=stored_rows(tmp_path, first),
        known_seconds=first.stack_seconds,
    )

    assert again.served == []
    assert (first.verdict.status, second.verdict.status) == ("pass", "inconclusive")
    assert second.verdict == judge_again(first, stored_rows(tmp_path, first), stricter.gate)
    assert second.rows_key == first.rows_key
    assert second.stack_seconds == first.stack_seconds
    assert second.verdict.policy_sha256 != first.verdict.policy_sha256


def test_rows_that_were_changed_are_refused(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    result = measure(task, Stacks())
    task.items_file.write_bytes(task.items_file.read_bytes() + b"\n")

    with pytest.raises(StageRefusedError, match="the rows that this verdict was made of"):
        stored_rows(tmp_path, result)


REPEATING = GATE.model_copy(update={"looks": (1, 2, 4), "alpha": 0.04, "margin": 0.12})


def test_an_undecided_candidate_is_asked_again_and_who_goes_first_alternates(
    tmp_path: Path,
) -> None:
    stacks = Stacks(wrong={"bfloat16": 4})
    result = measure(replace(task_in(tmp_path), gate=REPEATING), stacks)

    # Its last 4 items, all of truthfulqa, were wrong in the first run and in no other.
    assert stacks.served == ["float32", "bfloat16", "bfloat16", "float32"]
    assert [(stack, repeat, count) for stack, repeat, _, count in stacks.asked] == [
        ("float32", 0, 120),
        ("bfloat16", 0, 120),
        ("bfloat16", 1, 60),
        ("float32", 1, 60),
    ]
    assert [(one.benchmark, one.runs) for one in result.verdict.benchmarks] == [
        ("hellaswag", 1),
        ("truthfulqa", 2),
    ]
    assert result.verdict.status == "pass"


def test_another_run_has_another_seed_and_another_order(tmp_path: Path) -> None:
    stacks = Stacks(wrong={"bfloat16": 4})
    task = replace(task_in(tmp_path), gate=REPEATING)
    measure(task, stacks)
    rows = [ItemRow.model_validate_json(line) for line in task.items_file.read_bytes().splitlines()]

    assert {(row.repeat, row.seed) for row in rows} == {(0, 7), (1, 8)}
    first_items = {repeat: item for _, repeat, item, _ in stacks.asked}
    assert first_items[0] == "hellaswag-000"
    assert first_items[1] != "truthfulqa-000"
    by_run = [row.item for row in rows if row.repeat == 1 and row.stack == "float32"]
    assert by_run == sorted(by_run)


def test_a_run_that_is_known_is_not_asked_again_when_more_runs_are_due(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    first = measure(task, Stacks(wrong={"bfloat16": 4}))
    again = Stacks()
    measure_accuracy(
        replace(task, gate=REPEATING),
        again.serve,
        lambda *_: None,
        evaluator=again.evaluate,
        known=stored_rows(tmp_path, first),
    )

    assert {repeat for _, repeat, _, _ in again.asked} == {1}


def test_an_earlier_check_can_ask_for_more_runs_before_anything_passes(tmp_path: Path) -> None:
    stacks, seen = Stacks(), list[str]()
    result = measure_accuracy(
        replace(task_in(tmp_path), gate=REPEATING),
        stacks.serve,
        lambda *_: None,
        evaluator=stacks.evaluate,
        on_served=lambda stack, endpoint: seen.append(f"{stack} {endpoint.base_url}"),
        least_runs=lambda: 4,
    )

    assert seen[:2] == ["float32 http://float32", "bfloat16 http://bfloat16"]
    assert [one.runs for one in result.verdict.benchmarks] == [4, 4]
    assert (result.verdict.status, result.least_runs) == ("pass", 4)


def test_a_policy_with_fewer_looks_than_a_warning_demands_passes_nothing(tmp_path: Path) -> None:
    stacks = Stacks()
    gate = REPEATING.model_copy(update={"looks": (1,)})
    result = measure_accuracy(
        replace(task_in(tmp_path), gate=gate),
        stacks.serve,
        lambda *_: None,
        evaluator=stacks.evaluate,
        least_runs=lambda: 2,
    )
    assert result.verdict.status == "inconclusive"


def test_a_choice_that_is_written_out_can_be_cut_and_one_by_likelihood_cannot(
    tmp_path: Path,
) -> None:
    written = tuple(replace(item, is_written=True) for item in items_of("written", 3))
    asked = {"written": written, "likely": items_of("likely", 3)}
    assert replace(task_in(tmp_path), items=asked).generated == ("written",)


def test_stacks_that_differ_in_more_than_they_may_are_invalid(tmp_path: Path) -> None:
    conditions = {"float32": {"max_model_len": "2048"}, "bfloat16": {"max_model_len": "1024"}}
    result = measure(replace(task_in(tmp_path), conditions=conditions), Stacks())

    assert result.verdict.faults == ("max_model_len is 2048 for float32 and 1024 for bfloat16",)


def test_a_stack_that_answered_nothing_is_invalid_and_asked_again_next_time(
    tmp_path: Path,
) -> None:
    task = task_in(tmp_path)
    broken = measure(task, Stacks(error="POST /tokenize answered HTTP 500"))
    again = Stacks()
    repaired = measure(task, again)

    assert broken.verdict.status == "invalid"
    assert again.served == ["float32", "bfloat16"]
    assert repaired.verdict.status == "pass"


def test_a_server_that_does_not_start_ends_the_stage_without_a_verdict(tmp_path: Path) -> None:
    task = task_in(tmp_path)

    @contextmanager
    def serve(stack: str) -> Iterator[Endpoint]:
        raise WorldError(f"{stack} did not start")
        yield

    with pytest.raises(WorldError):
        measure_accuracy(task, serve, lambda *_: None, evaluator=Stacks().evaluate)
    assert list(tmp_path.iterdir()) == []


def test_progress_names_the_stack(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    stacks = Stacks()
    measure_accuracy(
        task_in(tmp_path),
        stacks.serve,
        lambda *now: told.append(now),
        evaluator=stacks.evaluate,
    )

    assert told == [("float32", 120, 120), ("bfloat16", 120, 120)]


def test_the_real_evaluator_is_asked_with_the_seed_and_the_temperature_of_each_run(
    tmp_path: Path,
) -> None:
    sums = tuple(
        Item(
            benchmark="sums",
            item=f"sum-{number}",
            task="number",
            prompt=f"{number} + 1?",
            expected="4",
            max_tokens=8,
        )
        for number in range(3)
    )
    choice = {"message": {"content": "#### 4"}, "finish_reason": "stop"}
    answer = {"choices": [choice], "usage": {"completion_tokens": 3}}
    behaviour = Behaviour(model="toy", raw_body=json.dumps(answer))
    gate = REPEATING.model_copy(update={"temperature": 0.7})
    with StandInServer(behaviour) as server:

        @contextmanager
        def serve(_: str) -> Iterator[Endpoint]:
            yield Endpoint(base_url=server.url, model="toy")

        task = replace(task_in(tmp_path), items={"sums": sums}, gate=gate)
        result = measure_accuracy(task, serve, lambda *_: None)

    asked = [(body["seed"], body["temperature"]) for _, body in behaviour.requests]
    assert asked == [(7, 0.7)] * 6 + [(8, 0.7)] * 6 + [
        (seed, 0.7) for seed in (9, 9, 9, 10, 10, 10) * 2
    ]
    assert (result.generated, result.chance) == (("sums",), {"sums": 0.0})
    assert result.verdict.benchmarks[0].reference_score == 1
    assert result.settings["temperature"] == 0.7
