"""`pipeline flageval` as a user starts it, against the stand-in of the service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.submitting import NO_VERDICT
from tests.fakes_flageval import Service, serving
from tests.projects import ROOT, TOY

URL = "http://192.0.2.7:9010"
NAME = "poet-abacus-fast"


class CommandLine:
    """The real command in a toy project, told where the service is."""

    def __init__(self, folder: Path, address: str | None) -> None:
        (folder / "matrix.yaml").write_text(TOY, "utf-8")
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.environment.pop("FLAGOS_EVAL_PLATFORM", None)
        if address:
            self.environment["FLAGOS_EVAL_PLATFORM"] = address

    def run(self, *words: str) -> tuple[int, list[str], str]:
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "flageval", "abacus", "poet", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as server:
        yield server


def address(service: Service) -> str:
    return f"http://127.0.0.1:{service.server_port}"


@pytest.fixture
def line(tmp_path: Path, service: Service) -> CommandLine:
    return CommandLine(tmp_path, address(service))


def result(*details: tuple[str, float | None], name: str = NAME) -> dict[str, object]:
    rows = [{"dataset": one, "accuracy": score, "status": "S"} for one, score in details]
    return {"err_code": 0, "eval_results": {name: {"status": "S", "details": rows}}}


def test_an_evaluation_is_submitted_followed_shown_and_stopped_without_naming_its_id(
    service: Service, line: CommandLine
) -> None:
    code, output, error = line.run("submit", "--url", URL)
    assert (code, error) == (0, "")
    assert output == [
        f"abacus/poet fast is evaluated as {NAME}: request r-1",
        "The service chooses the data sets of NLP; benchmarks of the cell: Quiz",
        NO_VERDICT,
    ]
    method, path, body = service.asked[0]
    assert (method, path) == ("POST", "/evaluation")
    assert [body[key] for key in ("eval_model", "model", "eval_url", "domain", "num_concurrent")] == [
        NAME, "poet-abacus-flagos", f"{URL}/v1/chat/completions", "NLP", 4,
    ]  # fmt: skip
    kept = json.loads((line.folder / "out/flageval/abacus/poet.json").read_bytes())
    assert [one["request_id"] for one in kept["requests"]] == ["r-1"]

    assert line.run("progress") == (0, ["r-1: running, 1/3 CMMMU"], "")
    service.result = result(("quiz", 65.236), ("AIME", None))
    code, output, _ = line.run("result")
    assert code == 0
    assert [row.split() for row in output[1:3]] == [
        [NAME, "quiz", "65.24", "-", "success", "quiz"],
        [NAME, "AIME", "-", "-", "success", "-"],
    ]
    assert output[3] == NO_VERDICT
    assert line.run("stop") == (0, ["r-1 is stopped"], "")
    assert service.asked[-1] == ("POST", "/stop_evaluation", {"request_id": "r-1"})


def test_two_stacks_are_compared_with_the_reference_first(
    service: Service, line: CommandLine
) -> None:
    code, _, error = line.run("compare")
    assert code == 1
    assert "no request of the stack slow is known here" in error
    assert "run nox -s flageval -- abacus poet submit --stack slow --url <your server>" in error
    kept = [
        {"request_id": name, "stack": stack, "name": stack, "url": URL, "submitted": "",
         "service": address(service)}
        for name, stack in (("r-8", "fast"), ("r-7", "slow"), ("r-9", "fast"))
    ]  # fmt: skip
    path = line.folder / "out/flageval/abacus/poet.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"requests": kept}))
    assert line.run("compare")[0] == 0
    assert service.asked[-1] == ("GET", "/evaluation_diffs", {"request_ids": ["r-7", "r-9"]})
    assert line.run("compare", "r-1")[0] == 2
    path.write_text(path.read_text().replace(address(service), "http://192.0.2.1:5050"))
    code, _, error = line.run("progress")
    assert code == 2
    assert "request r-9 was sent to http://192.0.2.1:5050, not to " in error


def test_no_address_of_the_service_or_of_the_server_says_what_to_set(
    line: CommandLine, tmp_path: Path
) -> None:
    code, _, error = line.run("submit")
    assert code == 2
    assert error == (
        "error: --url: the address of your server is needed\n"
        "hint: it has to be reachable from the service: --url http://<host>:<port>\n"
    )
    code, _, error = CommandLine(tmp_path, None).run("submit", "--url", URL)
    assert code == 2
    assert "hint: export FLAGOS_EVAL_PLATFORM=http://<host>:<port>" in error


def test_a_service_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, output, error = CommandLine(tmp_path, "http://127.0.0.1:9").run("submit", "--url", URL)
    assert (code, output) == (4, [])
    assert "POST http://127.0.0.1:9/evaluation: the FlagEval service does not answer" in error
    assert "reachable; look there before you submit again" in error
    assert not (tmp_path / "out").exists()


def test_half_an_answer_is_named_and_keeps_nothing(service: Service, line: CommandLine) -> None:
    service.missing_bytes = 5
    code, _, error = line.run("submit", "--url", URL)
    assert code == 4
    assert "the FlagEval service does not answer: ChunkedEncodingError" in error
    service.missing_bytes, service.raw = 0, b'{"err_code": 0, "reque'
    code, _, error = line.run("submit", "--url", URL)
    assert code == 4
    assert (
        'the FlagEval service answered no JSON object\n{"err_code": 0, "reque\nhint: see' in error
    )
    assert error.endswith("; look there before you submit again\n")
    assert not (line.folder / "out").exists()


def test_an_evaluation_that_is_not_done_or_failed_shows_no_score(
    service: Service, line: CommandLine
) -> None:
    service.result = {"err_code": 0, "eval_results": {NAME: {"status": "F", "details": []}}}
    code, output, error = line.run("result", "r-1")
    assert (code, output) == (1, [])
    assert f"FlagEval request r-1: the evaluation of {NAME} ended: failed" in error
    code, output, _ = line.run("compare", "r-0", "r-1")
    assert output[1].split() == [NAME, "-", "-", "-", "failed", "-"]
    service.result = {"err_code": 0, "eval_results": {}}
    code, output, error = line.run("result", "r-1")
    assert (code, output) == (4, [])
    assert "the FlagEval service names no model in its answer" in error
