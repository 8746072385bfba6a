"""HumanEval, and the box its programs run in."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from pipeline.benchmark import Benchmark
from pipeline.chip import Run
from pipeline.errors import UsageError, WorldError
from pipeline.world.benchmark_data import Item, load_items
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import evaluate
from pipeline.world.human_eval import code_of, program, request_text
from pipeline.world.sandbox import Sandbox
from pipeline.world.sandbox_runner import outcomes
from tests.fakes import FakeEngine, FakeImage
from tests.fakes_chat import chat_server

CASE = {
    "task_id": "HumanEval/900",
    "prompt": 'import math\n\n\ndef half(x):\n    """Half of x."""\n',
    "entry_point": "half",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n",
    "canonical_solution": "    return x / 2\n",
}


def benchmark(format_: str, task: str, **more: Any) -> Benchmark:
    file = "toy/cases.jsonl.gz" if format_ == "human_eval" else "toy/cases.jsonl"
    source = {"pypi": "toys", "version": "1", "file": file}
    builtin = {"task": task, "format": format_, "source": source, **more}
    return Benchmark.model_validate(
        {"title": "Toy", "license": "MIT", "evaluator": {"builtin": builtin}}
    )


def human_eval(max_tokens: int | None = 64) -> tuple[Item, ...]:
    data = gzip.compress(json.dumps(CASE).encode())
    return load_items("he", benchmark("human_eval", "code", max_tokens=max_tokens), data)


def test_a_benchmark_can_have_only_the_first_so_many_of_its_items() -> None:
    lines = "\n".join(json.dumps({**CASE, "task_id": f"HumanEval/{n}"}) for n in range(9))
    limited = benchmark("human_eval", "code", max_tokens=64, limit=2)
    items = load_items("he", limited, gzip.compress(lines.encode()))
    assert [item.item for item in items] == ["HumanEval/0", "HumanEval/1"]


def test_an_item_of_humaneval_is_asked_as_a_function_to_complete() -> None:
    (item,) = human_eval()
    assert (item.item, item.task, item.max_tokens) == ("HumanEval/900", "code", 64)
    assert item.prompt == request_text(CASE["prompt"])
    assert item.prompt.endswith(
        '```python\nimport math\n\n\ndef half(x):\n    """Half of x."""\n```'
    )


def test_humaneval_needs_a_limit_and_a_whole_file() -> None:
    with pytest.raises(UsageError, match="answers are generated, so their length needs a limit"):
        human_eval(max_tokens=None)
    with pytest.raises(WorldError, match=r"toy/cases.jsonl.gz: cannot be unpacked"):
        load_items("he", benchmark("human_eval", "code", max_tokens=9), b"{}")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (
            "Sure:\n```python\ndef half(x):\n    return x/2\n```\nDone.",
            "def half(x):\n    return x/2\n",
        ),
        ("```\nprint(1)\n```\n```py\ndef half(x): ...\n```", "def half(x): ...\n"),
        ("```python\ndef half(x):\n    return x", "def half(x):\n    return x"),
        ("    return x / 2", "    return x / 2"),
        ("```\nreturn x\n```", "return x\n"),
    ],
)
def test_the_code_of_a_reply_is_the_block_that_defines_the_function(reply: str, code: str) -> None:
    assert code_of(reply, "half") == code


def test_programs_pass_only_when_their_tests_were_reached_and_held() -> None:
    right = "def half(x):\n    return x / 2\n"
    programs = [
        program(right, CASE),
        program("    return x / 2\n", CASE),  # only the body
        program("def half(x):\n    return math.floor(x / 2)\n", CASE),  # with the prompt's import
        program("def half(x):\n    return x\n", CASE),
        program("import os\nos._exit(0)\n" + right, CASE),
        program("raise SystemExit(0)\n" + right, CASE),
        program("def half(x):\n    while True: pass\n", CASE),
        "this is no Python",
        "import signal, os\nos.kill(os.getpid(), signal.SIGSEGV)",
    ]
    assert outcomes(programs, cpu_s=1) == [
        *(3 * ["passed"]), *(3 * ["failed"]), "timed out", "failed", "failed",
    ]  # fmt: skip


class Box(FakeImage):
    def __init__(self, code: int, output: str) -> None:
        self.ended = (code, output)

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        assert command == ("python3", "-I", "/work/runner.py")
        return self.ended


def test_the_sandbox_has_no_network_no_rights_and_limits() -> None:
    engine = FakeEngine(Box(0, 'noise\n["passed", "failed"]\n'))
    assert Sandbox(engine=engine, image="toy")(["a", "b"]) == ("passed", "failed")
    (started,) = engine.started
    assert started.run == Run(network="none")
    assert started.user == "65534:65534"
    assert started.limits is not None
    assert started.limits.arguments() == {
        "mem_limit": 4 << 30,
        "memswap_limit": 4 << 30,
        "pids_limit": 256,
        "read_only": True,
        "tmpfs": {"/tmp": f"size={256 << 20},mode=1777"},
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
    }
    assert list(started.volumes.values()) == ["/work:ro"]


@pytest.mark.parametrize("ended", [(137, ""), (0, "no list"), (0, '["passed"]'), (0, "")])
def test_a_sandbox_that_does_not_judge_every_program_is_an_error(ended: tuple[int, str]) -> None:
    engine = FakeEngine(Box(*ended))
    with pytest.raises(WorldError, match="expected the outcomes of 2 programs") as caught:
        Sandbox(engine=engine, image="toy")(["a", "b"])
    assert "running generated code in toy" in str(caught.value)


def test_generated_code_is_judged_by_running_it() -> None:
    ran: list[str] = []

    def run_programs(programs: Any) -> tuple[str, ...]:
        ran.extend(programs)
        return tuple("timed out" for _ in programs)

    with chat_server() as (_, endpoint):
        (row,) = evaluate(
            endpoint,
            human_eval(),
            stack="s",
            concurrency=1,
            seed=1,
            progress=lambda *_: None,
            run_programs=run_programs,
        )
    assert (row.score, row.answer, row.error, row.finish_reason) == (0, "timed out", "", "stop")
    assert "check(half)" in ran[0]


def test_code_is_not_asked_for_where_it_cannot_be_run() -> None:
    nowhere = Endpoint(base_url="http://127.0.0.1:9", model="toy")
    with pytest.raises(UsageError, match="given no container to run them in"):
        evaluate(nowhere, human_eval(), stack="s", concurrency=1, seed=1, progress=lambda *_: None)
