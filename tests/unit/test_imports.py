"""What somebody else asked: when it decides, and that there are never more rows than result files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.accuracy_result import ItemRow, Verdict
from pipeline.gate.verdict import judge, judge_again
from pipeline.policy import Gate
from pipeline.result_source import Generation, ImportedRuns, ResultSource
from pipeline.results import FileHash
from pipeline.rows import stored_rows
from pipeline.stages.accuracy import AccuracyTask, measure_accuracy
from pipeline.world.benchmark_data import Item
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress
from tests.gate_rows import STACKS, gate_of, row, rows_of_scores

NEXT = "results/other/<stack>/run-2/other.json"
DOUBT = "bfloat16/other.json has no source.json beside it, so nobody knows what answered"
# Of 200 items: rules out a loss of 8 points at the first look, and one that does not rule it out, without showing harm.
CLEAR, OPEN = (0, 0), (19, 10)


def source(stack: str, **generation: object) -> ResultSource:
    asked = {"temperature": 0, "max_tokens": 64, "concurrency": 4, **generation}
    return ResultSource(
        result_sha256="0" * 64,
        stack=stack,
        image=f"sha256:{'1' * 64}",
        weights_sha256="2" * 64,
        serve={"max_model_len": 2048},
        harness="flagevalmm",
        harness_version="0.3.5",
        data="example/other@1",
        generation=Generation.model_validate(asked),
    )


def imported(
    *doubts: str, runs: int = 1, candidate: Mapping[str, object] | None = None
) -> dict[str, ImportedRuns]:
    stated = {STACKS[0]: {}, STACKS[1]: candidate or {}}
    sources = {stack: (source(stack, **asked),) * runs for stack, asked in stated.items()}
    return {
        "other": ImportedRuns(
            runs=runs, next_file=NEXT.replace("2", str(runs + 1)), doubts=doubts, sources=sources
        )
    }


def rows(name: str, flips: tuple[int, int], runs: int = 1) -> tuple[ItemRow, ...]:
    """200 items, 60 % right; the flips are in every run."""
    lost, gained = flips
    reference = [[1.0] * runs] * 120 + [[0.0] * runs] * 80
    candidate = [[0.0] * runs] * lost + [[1.0] * runs] * (120 - lost + gained)
    return rows_of_scores(name, reference, candidate + [[0.0] * runs] * (80 - gained))


def verdict_of(
    found: Sequence[ItemRow],
    benchmarks: Mapping[str, ImportedRuns],
    *,
    least_runs: int = 1,
    gate: Gate | None = None,
) -> Verdict:
    return judge(
        found,
        reference=STACKS[0],
        candidate=STACKS[1],
        gate=gate or gate_of(),
        chance=dict.fromkeys([one.benchmark for one in found], 0.25),
        imported=benchmarks,
        least_runs=least_runs,
    )


def test_results_of_known_source_decide_like_our_own() -> None:
    verdict = verdict_of(rows("other", CLEAR), imported())

    assert (verdict.status, verdict.warnings) == ("pass", ())
    assert verdict.benchmarks[0].tier == "critical"


def test_results_of_unknown_source_are_shown_and_decide_nothing() -> None:
    harmed = rows("other", (60, 0))
    verdict = verdict_of((*rows("quiz", CLEAR), *harmed), imported(DOUBT))

    assert verdict.status == "pass"
    assert [(one.benchmark, one.tier) for one in verdict.benchmarks] == [
        ("quiz", "critical"), ("other", "advisory"),
    ]  # fmt: skip
    assert verdict.warnings[0] == f"other (advisory): imported, and decides nothing: {DOUBT}"
    assert "other" not in verdict.sentence
    alone = verdict_of(rows("other", CLEAR), imported(DOUBT, "and", "more"))
    assert alone.sentence == "inconclusive: no benchmark of the policy decides, all are advisory"
    assert alone.warnings[0].endswith(" (and 2 more reasons)")


def test_rows_of_unknown_source_that_cannot_be_compared_do_not_stop_a_release() -> None:
    other = tuple(
        one.model_copy(update={"prompt_sha256": one.stack}) for one in rows("other", CLEAR)
    )
    verdict = verdict_of((*rows("quiz", CLEAR), *other), imported(DOUBT))

    assert verdict.status == "pass"
    assert [one.benchmark for one in verdict.benchmarks] == ["quiz"]
    assert verdict.warnings[1].startswith(
        "other (advisory): not shown: other: the stacks got different prompts for 200 items"
    )
    assert verdict_of(other, imported(DOUBT)).status == "inconclusive"
    assert verdict_of(other, imported()).status == "invalid"


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"temperature": 0.6}, "temperature is 0 for float32, run 1 and 0.6 for bfloat16, run 1"),
        ({"max_tokens": 32}, "max_tokens is 64 for float32, run 1 and 32 for bfloat16, run 1"),
        ({"concurrency": 8}, "concurrency is 4 for float32, run 1 and 8 for bfloat16, run 1"),
        (
            {"others": {"top_p": 0.9}},
            "top_p is (none) for float32, run 1 and 0.9 for bfloat16, run 1",
        ),
    ],
)
def test_stacks_that_somebody_else_asked_differently_cannot_be_compared(
    changed: dict[str, object], fault: str
) -> None:
    found = rows("other", CLEAR)

    assert verdict_of(found, imported(candidate=changed)).faults == (f"other: {fault}",)
    assert verdict_of(found, imported(DOUBT, candidate=changed)).status == "inconclusive"


def test_seeds_that_differ_are_invalid_and_seeds_that_nobody_knows_are_not() -> None:
    found = rows("other", CLEAR)
    unknown = [one.model_copy(update={"seed": None}) for one in found]
    half = [one.model_copy(update={"seed": 1 if one.stack == STACKS[0] else None}) for one in found]

    assert verdict_of(unknown, imported()).status == "pass"
    assert "the stacks got different seeds for 200 items" in verdict_of(half, imported()).sentence


def test_an_open_imported_benchmark_is_not_asked_again_but_another_file_is_asked_for() -> None:
    verdict = verdict_of((*rows("quiz", CLEAR), *rows("other", OPEN)), imported())

    assert (verdict.status, verdict.next_runs, verdict.undecided) == ("inconclusive", None, ())
    assert verdict.sentence.endswith(
        "19 items lost and 10 gained of 200); imported results cannot be asked again: judged again "
        f"with 2 result files of each stack (the next one is other: {NEXT})"
    )


def test_a_second_file_is_a_second_run() -> None:
    verdict = verdict_of(rows("other", OPEN, runs=2), imported(runs=2))

    assert (verdict.runs, verdict.next_runs) == (2, None)
    assert "judged again with 4 result files of each stack" in verdict.sentence
    assert "results/other/<stack>/run-3/other.json" in verdict.sentence


def test_what_is_open_of_our_own_is_asked_again_beside_imported_results_that_are_clear() -> None:
    verdict = verdict_of((*rows("quiz", OPEN), *rows("other", CLEAR)), imported())

    assert (verdict.next_runs, verdict.undecided) == (2, ("quiz",))


def test_imported_results_do_not_pass_on_fewer_runs_than_an_earlier_check_asks_for() -> None:
    found = (*rows("quiz", CLEAR), *rows("other", CLEAR))
    verdict = verdict_of(found, imported(), least_runs=2)

    assert (verdict.status, verdict.next_runs) == ("inconclusive", None)
    assert "an earlier check asks for more runs; imported results cannot" in verdict.sentence
    first_look_at_2 = gate_of(looks=(2, 4))
    two = (*rows("quiz", CLEAR, runs=2), *rows("other", CLEAR))
    assert verdict_of(two, imported(), gate=first_look_at_2).status == "pass"
    assert verdict_of(two, imported(), gate=first_look_at_2, least_runs=2).next_runs is None


class Asked:
    """Serves and evaluates, and notes both. Each of the first 19 items of bfloat16 is wrong, 10 more are gained."""

    def __init__(self) -> None:
        self.served: list[str] = []
        self.read: list[tuple[str, str, int]] = []  # benchmark, server, run

    @contextmanager
    def serve(self, stack: str) -> Iterator[Endpoint]:
        self.served.append(stack)
        yield Endpoint(base_url=f"http://{stack}", model="toy")

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
        self.read += [(name, endpoint.base_url, repeat) for name in {i.benchmark for i in items}]
        answers = {
            (one.benchmark, one.item): one
            for name, flips in (("quiz", CLEAR), ("other", OPEN))
            for one in rows(name, flips)
            if one.stack == stack
        }
        return tuple(answers[one.benchmark, one.item] for one in items)


def task_in(folder: Path) -> AccuracyTask:
    return AccuracyTask(
        key="image-1",
        reference=STACKS[0],
        candidate=STACKS[1],
        items={
            name: tuple(
                Item(benchmark=name, item=f"{name}-{n:04}", task="number", prompt="", expected="")
                for n in range(200)
            )
            for name in ("quiz", "other")
        },
        data=(FileHash(path="results/other", sha256="0" * 64, size_bytes=9),),
        gate=gate_of(),
        conditions={},
        items_file=folder / "items.jsonl",
        imported=imported(),
    )


def test_result_files_are_read_without_a_server_and_never_for_a_run_that_is_not_there(
    tmp_path: Path,
) -> None:
    asked, task = Asked(), task_in(tmp_path)
    result = measure_accuracy(task, asked.serve, lambda *_: None, evaluator=asked)

    assert asked.served == ["float32", "bfloat16"]
    assert asked.read == [
        ("other", "", 0), ("quiz", "http://float32", 0),
        ("other", "", 0), ("quiz", "http://bfloat16", 0),
    ]  # fmt: skip
    assert {one.repeat for one in stored_rows(tmp_path, result)} == {0}
    assert result.imported == task.imported
    assert not [name for name in result.settings if name.startswith("other.")]
    assert judge_again(result, stored_rows(tmp_path, result), task.gate) == result.verdict
    again = Asked()
    known = stored_rows(tmp_path, result)
    measure_accuracy(task, again.serve, lambda *_: None, evaluator=again, known=known)
    assert (again.served, [name for name, _, _ in again.read]) == ([], ["other", "other"])


def test_rows_and_results_that_were_stored_before_can_be_read() -> None:
    old = row("quiz", "1", STACKS[0], 0, 1.0).model_dump_json()

    assert ItemRow.model_validate_json(old).seed == 0
