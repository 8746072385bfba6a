"""The client of the FlagEval service against its stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import PipelineError, StageRefusedError, UsageError, WorldError
from pipeline.world.flageval import FlagEval
from pipeline.world.flageval_form import DatasetScore, Submission, submission
from tests.fakes_flageval import Service, serving

WANTED = Submission(
    name="step3-nvidia-flagos",
    model="step3",
    eval_url="http://192.0.2.7:9010/v1/chat/completions",
    tokenizer="/share/step3",
    domain="MM",
    chip="Nvidia-H100",
    num_concurrent=8,
)


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as server:
        yield server


@pytest.fixture
def client(service: Service) -> FlagEval:
    return FlagEval(f"http://127.0.0.1:{service.server_port}/", timeout_s=5, retry_wait_s=0.01)


def failure(kind: type[PipelineError], ask: Any) -> str:
    with pytest.raises(kind) as caught:
        ask()
    return str(caught.value)


def test_the_address_comes_from_the_environment() -> None:
    found = FlagEval.from_environment({"FLAGOS_EVAL_PLATFORM": "http://192.0.2.1:5050/"})
    assert found.address == "http://192.0.2.1:5050"
    text = failure(UsageError, lambda: FlagEval.from_environment({}))
    assert text == (
        "FLAGOS_EVAL_PLATFORM: the address of the FlagEval service is not known\n"
        "hint: export FLAGOS_EVAL_PLATFORM=http://<host>:<port>"
    )


def test_the_two_layouts_of_a_submission_hold_the_same() -> None:
    flat, nested = submission(WANTED, "flat"), submission(WANTED, "eval_infos")
    (inner,) = nested.pop("eval_infos")
    assert {**nested, **inner} == flat
    assert flat == {
        "eval_model": "step3-nvidia-flagos",
        "model": "step3",
        "eval_url": "http://192.0.2.7:9010/v1/chat/completions",
        "tokenizer": "/share/step3",
        "domain": "MM",
        "mode": "FlagRelease",
        "chip": "Nvidia-H100",
        "api_key": "EMPTY",
        "batch_size": 1,
        "num_concurrent": 8,
        "num_retry": 10,
        "gen_kwargs": "",
        "region": "bj",
        "dry_run": False,
        "user_id": 0,
    }


def test_an_evaluation_from_submission_to_result(service: Service, client: FlagEval) -> None:
    said: list[str] = []
    waited: list[float] = []
    request = client.submit(WANTED)
    found = client.wait(request, "MM", say=said.append, sleep=waited.append)
    assert found["step3-nvidia-flagos"].details == [
        DatasetScore(dataset="CMMMU", status="S", accuracy=65.24, diff=-0.45)
    ]
    assert said == ["FlagEval: 1/3 CMMMU", "FlagEval: 2/3 CMMMU"]
    assert waited == [30, 30]
    assert [(method, path) for method, path, _ in service.asked] == [
        ("POST", "/evaluation"),
        *(3 * [("POST", "/evaluation_progress")]),
        ("GET", "/evaldiffs"),
    ]
    assert service.asked[1][2] == {"request_id": "r-1", "domain": "MM"}
    assert service.asked[-1][2] == {"request_id": "r-1"}


def test_a_service_that_wants_the_other_layout_says_no_and_the_hint_names_the_place(
    service: Service, client: FlagEval
) -> None:
    service.layout = "eval_infos"
    text = failure(WorldError, lambda: client.submit(WANTED))
    assert "refused with err_code 1\neval_model is missing" in text
    assert "hint: a refused submission may mean the other layout" in text
    assert client.submit(WANTED, layout="eval_infos") == "r-1"


def test_two_evaluations_are_compared_and_one_can_be_stopped_and_resumed(
    service: Service, client: FlagEval
) -> None:
    assert client.compare(["r-0", "r-1"])["step3-nvidia-flagos"].status == "S"
    client.stop("r-1")
    client.resume("r-1")
    assert service.asked == [
        ("GET", "/evaluation_diffs", {"request_ids": ["r-0", "r-1"]}),
        ("POST", "/stop_evaluation", {"request_id": "r-1"}),
        ("POST", "/resume_evaluation", {"request_id": "r-1"}),
    ]


@pytest.mark.parametrize(
    ("model", "ending"),
    [
        ({"status": "F", "details": []}, "failed"),
        ({"status": "S", "details": []}, "without scores"),
        ({"status": "S", "details": [{"dataset": "CMMMU", "status": "OOR"}]}, "out of retries"),
        ({"status": "new", "details": []}, "new"),
    ],
)
def test_an_evaluation_that_did_not_end_well_has_no_result(
    service: Service, client: FlagEval, model: dict[str, Any], ending: str
) -> None:
    service.result = {"err_code": 0, "eval_results": {"step3": model}}
    text = failure(StageRefusedError, lambda: client.result("r-1"))
    assert text.startswith(f"FlagEval request r-1: the evaluation of step3 ended: {ending}\n")


def test_waiting_ends(client: FlagEval) -> None:
    text = failure(
        WorldError,
        lambda: client.wait("r-1", "NLP", say=print, sleep=lambda _: None, polls_s=(30, 30)),
    )
    assert "not finished after 2 looks in 1 minutes" in text


@pytest.mark.parametrize(
    ("status", "raw", "message"),
    [
        (502, b"Bad Gateway", "answered HTTP 502\nBad Gateway"),
        (200, b"<html>", "answered no JSON object"),
        (200, b"[]", "answered no JSON object"),
        (200, b'{"err_code": 0}', "answered in another form: request_id: Field required"),
    ],
)
def test_a_wrong_answer_is_named(
    service: Service, client: FlagEval, status: int, raw: bytes, message: str
) -> None:
    service.status, service.raw = status, raw
    text = failure(WorldError, lambda: client.submit(WANTED))
    assert f"POST {client.address}/evaluation: the FlagEval service {message}" in text


def test_nobody_there_is_an_error_with_a_hint() -> None:
    nowhere = FlagEval("http://127.0.0.1:9", timeout_s=1, retry_wait_s=0.01)
    text = failure(WorldError, lambda: nowhere.progress("r-1", "NLP"))
    assert "the FlagEval service does not answer: ConnectionError" in text
    assert "hint: see that FLAGOS_EVAL_PLATFORM is right and the service reachable" in text
