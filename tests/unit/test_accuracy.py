from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.canonical import canonical, sha256_file
from pipeline.errors import WorldError
from pipeline.results import AccuracyResult, FileHash, ItemRow
from pipeline.stages.accuracy import AccuracyTask, measure_accuracy
from pipeline.world.benchmark_data import Item
from pipeline.world.evaluator import Endpoint, Progress

SECRET_TEXT = "a question whose text must not be stored"


def items_of(benchmark: str, count: int) -> tuple[Item, ...]:
    return tuple(
        Item(
            benchmark=benchmark,
            item=f"{benchmark}-{number:03}",
            task="choice",
            prompt=SECRET_TEXT,
            choices=("yes", "no"),
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
        progress: Progress,
    ) -> tuple[ItemRow, ...]:
        assert endpoint.base_url == f"http://{stack}"
        progress(stack, len(items), len(items))
        right = len(items) - self.wrong.get(stack, 0)
        return tuple(
            ItemRow(
                benchmark=item.benchmark,
                item=item.item,
                cluster=item.item,
                stack=stack,
                repeat=0,
                seed=seed,
                score=1 if number < right else 0,
                prompt_sha256="same",
                answer="0",
                finish_reason="length",
                tokens=concurrency,
                error=self.error,
                response_sha256=stack,
            )
            for number, item in enumerate(items)
        )


def task_in(folder: Path) -> AccuracyTask:
    return AccuracyTask(
        key="image-1",
        reference="float32",
        candidate="bfloat16",
        items={"hellaswag": items_of("hellaswag", 60), "truthfulqa": items_of("truthfulqa", 60)},
        data=(FileHash(path="cases.jsonl", sha256="0" * 64, size_bytes=9),),
        margins={"hellaswag": 0.08, "truthfulqa": 0.08},
        alpha=0.05,
        power_margins=1,
        concurrency=4,
        seed=7,
        items_file=folder / "items.jsonl",
    )


def ticking() -> Callable[[], float]:
    times = iter([0.0, 5.0, 100.0, 107.0])
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


def test_a_killed_run_goes_on_with_the_stack_that_was_not_done(tmp_path: Path) -> None:
    task = task_in(tmp_path)

    @contextmanager
    def killed(stack: str) -> Iterator[Endpoint]:
        if stack == "bfloat16":
            raise KeyboardInterrupt
        yield Endpoint(base_url=f"http://{stack}", model="toy")

    first = Stacks()
    with pytest.raises(KeyboardInterrupt):
        measure_accuracy(task, killed, lambda *_: None, evaluator=first.evaluate, clock=ticking())
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
        {"seed": 8},
        {"concurrency": 8},
        {
            "items": {
                "hellaswag": items_of("hellaswag", 61),
                "truthfulqa": items_of("truthfulqa", 9),
            }
        },
    ],
)
def test_rows_of_another_key_are_not_used_again(tmp_path: Path, change: dict[str, object]) -> None:
    task = task_in(tmp_path)
    measure(task, Stacks())
    again = Stacks()
    measure(replace(task, **change), again)  # type: ignore[arg-type]

    assert again.served == ["float32", "bfloat16"]


@pytest.mark.parametrize("left", [b"", b"{\n", b'{"key":"x"}\n'])
def test_a_file_that_is_not_ours_is_measured_anew(tmp_path: Path, left: bytes) -> None:
    task = task_in(tmp_path)
    measure(task, Stacks())
    (tmp_path / "items.float32.jsonl").write_bytes(left)
    again = Stacks()
    measure(task, again)

    assert again.served == ["float32"]


def test_a_file_with_fewer_rows_is_measured_anew(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    measure(task, Stacks())
    path = tmp_path / "items.bfloat16.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    again = Stacks()
    measure(task, again)

    assert again.served == ["bfloat16"]


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
