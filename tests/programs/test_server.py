"""A served stack: ready, refused with the server's own words, and always removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from pipeline.chip import Run
from pipeline.errors import PipelineError, StageRefusedError, WorldError
from pipeline.world import server
from pipeline.world.openai import OpenAI
from pipeline.world.server import Launch, Served, refuse_taken_port, serving, stop_server
from tests.fakes import FakeEngine, ServingImage, Started
from tests.fakes_server import Behaviour, StandInServer, free_port

IMAGE = "registry.test/toys/staging/abacus/poet@sha256:ab"
AROUND = f"hint: the reason is in the lines above; to look around: docker run --rm -it {IMAGE} bash"


@pytest.fixture(autouse=True)
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.01)


def launch(port: int, *, budget_s: float = 5) -> Launch:
    return Launch(
        image=IMAGE,
        run=Run(shm_size="4g"),
        name="served",
        volumes={"/weights": "/share/poet:ro"},
        command=("flagscale", "serve", "poet"),
        log_path="/var/log/serve.output",
        port=port,
        budget_s=budget_s,
    )


@contextmanager
def served_by(image: ServingImage, *, budget_s: float = 5) -> Iterator[tuple[Served, FakeEngine]]:
    engine = FakeEngine(image)
    with serving(engine, launch(image.port, budget_s=budget_s), lambda _: None) as served:
        yield served, engine
    assert engine.containers == {}


def refusal(image: ServingImage, *, budget_s: float = 5) -> str:
    engine, said = FakeEngine(image), list[str]()
    with (
        pytest.raises(StageRefusedError) as caught,
        serving(engine, launch(image.port, budget_s=budget_s), said.append),
    ):
        raise AssertionError("a server that is not ready was given out")
    assert engine.containers == {}, "the container was left behind"
    return str(caught.value)


def test_a_healthy_server_is_given_out_and_its_container_removed_at_the_end() -> None:
    image = ServingImage(port=free_port())
    with served_by(image) as (served, engine):
        assert served.base_url == f"http://127.0.0.1:{image.port}"
        assert served.launcher_output == "run_inference_engine started\n"
        assert 0 <= served.launcher_seconds <= served.ready_seconds
        assert served.log_tail(1) == "INFO: engine started"
        assert engine.started == [
            Started(
                image=IMAGE,
                command=("sleep", "infinity"),
                run=Run(shm_size="4g"),
                name="served",
                volumes={"/weights": "/share/poet:ro"},
                user=None,
            )
        ]
    refuse_taken_port(image.port)


def test_the_container_is_removed_when_what_uses_the_server_fails() -> None:
    image = ServingImage(port=free_port())
    engine = FakeEngine(image)
    with (
        pytest.raises(KeyboardInterrupt),
        serving(engine, launch(image.port), lambda _: None),
    ):
        raise KeyboardInterrupt
    assert (engine.containers, image.server) == ({}, None)


def test_a_launcher_that_fails_is_refused_with_what_it_printed() -> None:
    output = "nanobind: leaked 1 instances!\nKeyError: 'serve'\n"
    image = ServingImage(port=free_port(), launcher=(3, output))
    assert refusal(image) == (
        f"flagscale serve poet in {IMAGE}: the launcher ended with exit code 3\n"
        f"KeyError: 'serve'\n{AROUND}"
    )


def test_a_server_that_dies_is_refused_early_with_its_last_lines() -> None:
    lines = [f"INFO: loading shard {n}" for n in range(30)]
    image = ServingImage(port=free_port(), starts=False, stays=False, log="\n".join(lines))
    last = "\n".join(lines[-20:])
    assert refusal(image, budget_s=600) == (
        f"flagscale serve poet in {IMAGE}: the server died after 0 s while starting\n"
        f"{last}\n{AROUND}"
    )


# As vLLM 0.24.0 (v1/worker/utils.py, v1/worker/gpu_worker.py, v1/core/kv_cache_utils.py), torch and CUDA say it.
BUSY = (
    "ValueError: Free memory on device cuda:0 (5.1/79.18 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 71.26 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)
PROFILED = (
    "AssertionError: Error in memory profiling. Initial free memory 70.1 GiB, current free memory 74.9 GiB. This "
    "happens when other processes sharing the same container release GPU memory while vLLM is profiling during "
    "initialization. To fix this, ensure consistent GPU memory allocation or isolate vLLM in its own container."
)
CACHE = (
    "ValueError: To serve at least one request with the model's max seq len (65536), (8.0 GiB KV cache is needed, "
    "which is larger than the available KV cache memory (2.13 GiB). Based on the available memory, the estimated "
    "maximum model length is 17424."
)
FULL = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"
NO_CACHE = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when"
OF_THE_MACHINE = [
    (BUSY, "something else holds memory of the device"),
    (PROFILED, "something else took or gave back memory of the device"),
    (
        "torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "the container sees no free device",
    ),
    (
        "RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable",
        "the container sees no free device",
    ),
    ("RuntimeError: No CUDA GPUs are available", "the container sees no free device"),
    ("OSError: [Errno 28] No space left on device", "a disk is full"),
]
OF_THE_IMAGE = [
    (FULL, "the model needs more memory"),
    (NO_CACHE, "no memory is left for the cache"),
    (CACHE, "no memory is left for the cache"),
    (
        "RuntimeError: CUDA driver version is insufficient for CUDA runtime version",
        "the driver is too old",
    ),
]
LAST = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)


def dying(cause: str) -> ServingImage:
    """Its server prints what vLLM prints when its engine dies, and ends."""
    after = [f"  File engine.py, line {n}" for n in range(40)]
    log = "\n".join(["INFO: loading", f"(EngineCore pid=9) ERROR {cause}", *after, LAST])
    return ServingImage(port=free_port(), starts=False, stays=False, log=log)


@pytest.mark.parametrize(("cause", "advice"), OF_THE_IMAGE)
def test_the_cause_of_a_death_is_shown_before_what_followed_and_says_what_to_do(
    cause: str, advice: str
) -> None:
    head, shown, followed, hint = refusal(dying(cause), budget_s=600).splitlines()
    assert head.endswith("the server died after 0 s while starting")
    assert (shown, followed) == (cause[:300], LAST)
    assert hint.startswith(f"hint: {advice}")


@pytest.mark.parametrize(("cause", "advice"), OF_THE_MACHINE)
def test_a_fault_of_the_machine_is_no_refusal_of_the_image_and_says_how_to_go_on(
    cause: str, advice: str
) -> None:
    found = fault(dying(cause))
    assert isinstance(found, WorldError)
    assert found.message == "the server died after 0 s while starting"
    assert found.details.splitlines() == [cause[:300], LAST]
    assert found.hint.startswith(advice)
    assert found.hint.endswith("; then run the same command again: it goes on where it was")


def fault(image: ServingImage, use: Callable[[FakeEngine], None] = lambda _: None) -> PipelineError:
    """What is told when a server dies at its start, or while it is used."""
    engine = FakeEngine(image)
    with (
        pytest.raises(PipelineError) as caught,
        serving(engine, launch(image.port, budget_s=600), lambda _: None) as served,
        served.explaining(),
    ):
        use(engine)
    assert engine.containers == {}, "the container was left behind"
    return caught.value


@pytest.mark.parametrize(
    "counted",
    [
        "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n",  # control groups 2
        "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
    ],
)
@pytest.mark.parametrize("starts", [True, False])
def test_a_server_that_the_kernel_ended_for_want_of_memory_says_so(
    counted: str, starts: bool
) -> None:
    image = ServingImage(
        port=free_port(), starts=starts, stays=False, log=LAST, memory_events=counted
    )
    found = fault(image, lambda _: image.removed())
    assert isinstance(found, WorldError)
    assert found.message.endswith(": the kernel ended 1 of its processes for want of memory (OOM)")
    assert "docker stats" in found.hint


def stop_answering(_: FakeEngine) -> None:
    raise WorldError("the server stopped answering while items were asked")


def test_a_container_that_somebody_ended_is_no_fault_of_the_server() -> None:
    image = ServingImage(port=free_port())

    def end(engine: FakeEngine) -> None:
        engine.containers["served"].ended = "ended with exit code 137"
        stop_answering(engine)

    found = fault(image, end)
    assert isinstance(found, WorldError)
    assert str(found) == (
        f"http://127.0.0.1:{image.port}: the server died while it was asked: its container ended with exit code 137\n"
        "hint: docker events --since 10m says who ended it; then run the same command again: it goes on where it was"
    )


def test_the_log_of_a_server_that_is_gone_is_told_with_what_failed() -> None:
    image = ServingImage(port=free_port(), log="INFO: up\nValueError: bad shape\n")

    def end(engine: FakeEngine) -> None:
        image.removed()
        stop_answering(engine)

    found = fault(image, end)
    assert found.message == "the server stopped answering while items were asked"
    assert found.details == "ValueError: bad shape"


def test_what_a_server_answered_whose_engine_has_run_out_of_memory_is_refused() -> None:
    image = ServingImage(port=free_port(), log=FULL)

    def numb(_: FakeEngine) -> None:
        image.behaviour.healthy = False

    found = fault(image, numb)
    assert isinstance(found, StageRefusedError)
    assert found.message == "the server died while it was asked"
    assert found.hint.startswith("the model needs more memory")


def test_what_fails_beside_a_healthy_server_is_raised_as_it_is() -> None:
    image = ServingImage(port=free_port(), log=FULL)  # as a library says that tried it and goes on
    found = fault(image, stop_answering)
    assert str(found) == "the server stopped answering while items were asked"


def test_a_dead_server_without_a_log_is_refused_with_what_the_launcher_printed() -> None:
    image = ServingImage(
        port=free_port(), starts=False, stays=False, log="", launcher=(0, "no such host\n")
    )
    assert refusal(image).splitlines()[1] == "no such host"


def test_a_server_that_is_not_ready_in_its_budget_is_refused() -> None:
    image = ServingImage(port=free_port(), starts=False, log="INFO: loading shard 1 of 99\n")
    assert refusal(image, budget_s=0.05) == (
        f"flagscale serve poet in {IMAGE}: the server was not ready in its budget of 0 s\n"
        f"INFO: loading shard 1 of 99\n{AROUND}"
    )


def test_a_server_that_answers_but_is_not_healthy_is_not_ready() -> None:
    image = ServingImage(port=free_port(), behaviour=Behaviour(healthy=False))
    assert "the server was not ready in its budget" in refusal(image, budget_s=0.05)


def test_a_container_that_ends_is_a_server_that_died() -> None:
    class Ending(ServingImage):
        def processes(self) -> list[str]:
            return []

    image = Ending(port=free_port(), behaviour=Behaviour(healthy=False))
    assert "the server died after 0 s while starting" in refusal(image)


def test_progress_says_how_long_and_the_last_line_of_the_log() -> None:
    said: list[str] = []
    image = ServingImage(port=free_port(), starts=False, log="one\nINFO: loading weights\n")
    with (
        pytest.raises(StageRefusedError),
        serving(FakeEngine(image), launch(image.port, budget_s=0.02), said.append),
    ):
        pass
    assert said[0] == "   0 s  INFO: loading weights"


def test_a_port_that_something_listens_on_is_refused_before_a_container_starts() -> None:
    with StandInServer() as other:
        engine = FakeEngine(ServingImage(port=other.port))
        with (
            pytest.raises(WorldError) as caught,
            serving(engine, launch(other.port), lambda _: None),
        ):
            pass
        assert str(caught.value) == (
            f"127.0.0.1:{other.port}: port {other.port} is in use on this machine\n"
            f"hint: stop what listens there (ss -ltnp 'sport = :{other.port}'),"
            " or change the model's port"
        )
        assert engine.started == []


def test_a_server_that_stops_when_asked_leaves_its_port_free() -> None:
    image = ServingImage(port=free_port())
    with served_by(image) as (served, _):
        stopped, seen = stop_server(served, patience_s=5)
        assert (stopped, seen) == (True, "ended in 0.0 s")
        refuse_taken_port(image.port)


def test_a_server_that_does_not_stop_is_named_with_its_processes() -> None:
    image = ServingImage(port=free_port(), stops=False)
    with served_by(image) as (served, _):
        assert stop_server(served, patience_s=0.01) == (
            False,
            "still running after 0 s: python -m vllm serve; VLLM::EngineCore",
        )


def test_a_proxy_of_the_machine_is_not_asked_for_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with served_by(ServingImage(port=free_port())) as (served, _):
        ai = OpenAI(served.base_url, "poet-abacus-flagos")
        assert ai.chat("What is the capital of France?").error == ""
        assert ai.stream("What is the capital of France?", max_tokens=8)[2] == ""


def test_an_answer_that_never_comes_has_status_zero_and_a_reason() -> None:
    answer = OpenAI(f"http://127.0.0.1:{free_port()}", "poet").models()
    assert (answer.status, answer.body, answer.text) == (0, {}, "")
    assert "Connection refused" in answer.error


@pytest.mark.parametrize("text", ["a\u2028b \u0085c d", "“Paris” 巴黎 is it"])
def test_a_stream_is_put_together_whatever_signs_it_holds(text: str) -> None:
    with StandInServer(Behaviour(model="poet", answers=(text,))) as stand_in:
        assert OpenAI(stand_in.url, "poet").stream("?", max_tokens=8) == (
            text,
            len(text.split(" ")),
            "",
        )


def test_an_error_inside_a_stream_is_told() -> None:
    with StandInServer(Behaviour(model="poet", stream_error="the engine died")) as stand_in:
        text, chunks, error = OpenAI(stand_in.url, "poet").stream("?", max_tokens=8)
    assert (text, chunks, error) == ("The ", 1, "HTTP 200: the engine died")
