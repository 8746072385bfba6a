"""evalscope itself, offline, against a stand-in server: every task that matrix.yaml can name, two stacks each.

Writes records/trials/evalscope.json. The first run makes evalscope's environment (1.2 GB) under out/environments.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from pipeline.accuracy_result import ItemRow
from pipeline.benchmark import EVALSCOPE_VERSION, Evalscope
from pipeline.canonical import canonical, write_whole
from pipeline.errors import CommandError
from pipeline.world.command import run
from pipeline.world.evalscope import REQUIREMENTS, EvalscopeBenchmark
from pipeline.world.harness_environment import harness_python
from tests.fakes_chat import ChatServer, chat_server
from tests.projects import ROOT
from tests.trials.evalscope_record import RECORD, EvalscopeTrial, TaskRun, held_files


def gpqa_rights() -> set[str]:
    """evalscope shuffles the choices of GPQA by the hash of the question; those whose right one came first."""
    rights = set()
    for number in range(4):
        question = f"Which word, number {number}?".encode()
        choices = ["wrong", "wrong", "wrong", "right"]
        Random(int.from_bytes(hashlib.sha256(question).digest()[:8])).shuffle(choices)
        rights |= {f"default/{number}"} if choices[0] == "right" else set()
    return rights


# By name: what matrix.yaml would say, the number of items, and the items that the stand-in answers rightly.
CASES: dict[str, tuple[dict[str, object], int, set[str]]] = {
    "blink": ({"task": "blink", "subsets": ["Counting"]}, 4, {"Counting/0", "Counting/2"}),
    "cii_bench": (
        {"task": "general_vmcq", "shape": "cii_bench"}, 3, {"default/0", "default/2"},
    ),
    "cmmmu": ({"task": "cmmmu"}, 6, {"会计/0", "会计/2", "会计/5"}),
    "general_mcq": ({"task": "general_mcq"}, 3, {"default/0", "default/2"}),
    "gpqa_diamond": ({"task": "gpqa_diamond"}, 4, gpqa_rights()),
    "math_vision": (
        {"task": "math_vision"}, 5, {"level 1/0", "level 1/1", "level 2/1"},
    ),
    "mmlu_pro": ({"task": "mmlu_pro"}, 3, {"math/0", "math/2"}),
    "mmmu": (
        {"task": "mmmu", "subsets": ["Art", "Math"]}, 7, {"Art/0", "Art/2"},
    ),
    "mmmu_pro_standard": (
        {"task": "mmmu_pro", "variant": "standard (10 options)"}, 3, {"Art/0", "Art/2"},
    ),
    "mmmu_pro_vision": ({"task": "mmmu_pro", "variant": "vision"}, 3, {"Art/0", "Art/2"}),
    "ocr_bench": (
        {"task": "ocr_bench"},
        4,
        {"Regular Text Recognition/0", "Regular Text Recognition/2"},
    ),
}  # fmt: skip
STACKS = ("native", "flagos")


@pytest.fixture(scope="module")
def environment() -> tuple[Path, float | None]:
    started = time.monotonic()
    environments = ROOT / "out" / "environments"
    was_there = list(environments.glob("evalscope-*/complete"))
    python = harness_python(REQUIREMENTS, environments, print)
    return python, None if was_there else time.monotonic() - started


@pytest.fixture(scope="module")
def data(environment: tuple[Path, float | None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    script = Path(__file__).with_name("evalscope_data.py")
    run([environment[0], script, folder], doing="writing small data folders", hint="see its output")
    return folder


@pytest.fixture(scope="module")
def runs() -> list[TaskRun]:
    return []


@pytest.mark.parametrize("name", CASES)
def test_a_task_gives_the_same_rows_for_two_stacks_however_its_answers_arrive(
    name: str,
    environment: tuple[Path, float | None],
    data: Path,
    tmp_path: Path,
    runs: list[TaskRun],
) -> None:
    spec, count, right = CASES[name]
    folder = data / ("mmmu_pro" if name.startswith("mmmu_pro") else name)
    before = sorted(path.name for path in folder.iterdir())
    benchmark = EvalscopeBenchmark(
        name=name,
        spec=Evalscope.model_validate({"data": "x", "dataset": "ours", "max_tokens": 64, **spec}),
        data=folder,
        folder=tmp_path / name,
        python=environment[0],
    )
    items = benchmark.items(count)
    of_stack: dict[str, tuple[ItemRow, ...]] = {}
    seconds: dict[str, float] = {}
    with chat_server() as (server, endpoint):
        for stack in STACKS:
            started = time.monotonic()
            rows = benchmark(
                endpoint,
                items,
                stack=stack,
                concurrency=4,
                seed=7,
                repeat=0,
                temperature=0,
                progress=lambda *_: None,
            )
            of_stack[stack] = rows
            seconds[stack] = round(time.monotonic() - started, 2)
        _held_to_what_was_sent(server)
    native, flagos = (of_stack[stack] for stack in STACKS)
    assert [row.item for row in native] == [item.item for item in items]
    assert [r.model_copy(update={"stack": ""}) for r in native] == [
        r.model_copy(update={"stack": ""}) for r in flagos
    ]
    assert {row.item for row in native if row.score == 1} == right
    too_long = "the prompt is longer than the model's context"
    assert {row.item: row.error for row in native if row.error} == (
        {"Art/4": too_long} if name == "mmmu" else {}
    )
    # The folder of the user is as it was: evalscope deleted files of a copy.
    assert sorted(path.name for path in folder.iterdir()) == before
    runs += [
        TaskRun(
            task=name,
            stack=stack,
            items=len(rows),
            right=sum(row.score == 1 for row in rows),
            errors=sum(row.error != "" for row in rows),
            seconds=seconds[stack],
        )
        for stack, rows in of_stack.items()
    ]


def test_a_pass_that_a_failed_request_ended_goes_on_where_it_stopped(
    environment: tuple[Path, float | None], data: Path, tmp_path: Path
) -> None:
    benchmark = EvalscopeBenchmark(
        name="gpqa_diamond",
        spec=Evalscope(task="gpqa_diamond", data="x", dataset="ours", max_tokens=64),
        data=data / "gpqa_diamond",
        folder=tmp_path,
        python=environment[0],
    )
    items = benchmark.items(4)
    with chat_server() as (server, endpoint):

        def ask() -> tuple[ItemRow, ...]:
            return benchmark(
                endpoint,
                items,
                stack="s",
                concurrency=1,
                seed=7,
                repeat=0,
                temperature=0,
                progress=lambda *_: None,
            )

        server.fails_on = "number 3"
        with pytest.raises(CommandError, match="evalscope, run gpqa_diamond"):
            ask()
        server.fails_on = ""
        server.seen.clear()
        rows = ask()
        assert [row.error for row in rows] == [""] * 4
        assert len(server.seen) == 1


def _held_to_what_was_sent(server: ChatServer) -> None:
    assert {body["temperature"] for body in server.seen} == {0.0}
    assert {body["seed"] for body in server.seen} == {7}
    assert {body["max_tokens"] for body in server.seen} == {64}
    assert "请" not in str([b["messages"] for b in server.seen]) or "图中" in str(server.seen)


def test_what_was_seen_is_recorded(
    environment: tuple[Path, float | None], runs: list[TaskRun]
) -> None:
    assert {one.task for one in runs} == set(CASES)
    record = EvalscopeTrial(
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        evalscope=EVALSCOPE_VERSION,
        environment_seconds=None if environment[1] is None else round(environment[1], 1),
        files=held_files(),
        runs=tuple(runs),
    )
    write_whole(RECORD, canonical(record.model_dump(mode="json")) + b"\n")
