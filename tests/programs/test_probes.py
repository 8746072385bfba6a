"""Probers with a stand-in for vLLM whose answers hang on the operators that its configuration leaves on."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cells import select
from pipeline.culprits import ProbeAnswer, Subject, exclusions_of
from pipeline.errors import StageRefusedError, WorldError
from pipeline.logit_policy import LogitLimits, LogitProfile
from pipeline.matrix_file import read_matrix
from pipeline.matrix_patch import exclusion_patch
from pipeline.probes.candidate import Candidate, Library, library_in, probe_cell
from pipeline.probes.pregate import Oracle, references
from pipeline.probes.probers import restarted, switched
from pipeline.project import Project
from pipeline.stages.bisect import BisectTask, bisect
from pipeline.traces import ReferenceTrace
from pipeline.world import server
from pipeline.world.endpoint import Endpoint
from pipeline.world.operator_switch import switch_operators
from pipeline.world.teacher import collect_reference
from tests.fakes import FakeEngine, FakeImage, ServingImage, Started
from tests.fakes_model import Row, ToyModel
from tests.fakes_server import Behaviour, StandInServer, free_port
from tests.projects import toy_project
from tests.toy_built import toy_candidate

HTTP_500 = {"a number that JSON cannot hold": math.nan}  # becomes that
OPERATORS = frozenset({"gelu", "mm", "pow", "silu", "sin", "softmax"})
PROMPTS = ["a cat", "the dog sleeps", "why?", "one two three"]
PROFILE = LogitProfile(
    name="toy",
    prompts=4,
    answered=3,
    scored_alone=2,
    decoded_alone=1,
    answer_tokens=4,
    batch=4,
    min_positions=20,
)


@dataclass(kw_only=True)
class Beads(ToyModel):
    """A model in a server with an operator switch. `wrong` operators spoil it, `deadly` ones end the server."""

    on: frozenset[str] = frozenset()
    wrong: Collection[str] = ()
    deadly: Collection[str] = ()
    numbing: Collection[
        str
    ] = ()  # the engine dies of them, and its server goes on answering HTTP 500
    unregistrable: Collection[str] = ()
    runs: bool = True  # False: what is switched on is registered and never called
    calls: int = 0
    image: BeadsImage | None = None

    def __post_init__(self) -> None:
        self.spoil = self._spoiled

    def _spoiled(self, _: tuple[int, ...], row: Row) -> Row:
        self.calls += bool(self.on) and self.runs
        return row[::-1] if self.runs and self.on & set(self.wrong) else row

    def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self.image and not self.image.behaviour.healthy:
            return HTTP_500
        if path == "/collective_rpc":
            self.on = OPERATORS - set(filter(None, body["args"][1].split(",")))
            if self.on & set(self.unregistrable):
                return HTTP_500
            return {"results": [{"registered": sorted(self.on), "calls": {"mm": self.calls}}]}
        if path == "/reset_prefix_cache":
            return {}
        if self.image and self.on & set(self.numbing):
            self.image.behaviour.healthy = False
            return HTTP_500
        if self.image and self.on & set(self.deadly):
            self.image.removed()
            raise ConnectionAbortedError
        return super().reply(path, body)


@dataclass(kw_only=True)
class BeadsImage(ServingImage):
    """Its launcher reads which operators the mounted configuration leaves out."""

    model: Beads
    deadly_at_start: Collection[str] = ()
    seen: list[Started] = field(default_factory=list)
    configured: list[dict[str, Any]] = field(default_factory=list)

    def _launch(self) -> tuple[int, str]:
        conf = next(p for p, inside in self.seen[-1].volumes.items() if inside.endswith("conf:ro"))
        experiment = yaml.safe_load((Path(conf) / "serve.yaml").read_text("utf-8"))["experiment"]
        self.configured.append(experiment["envs"])
        off = experiment["envs"].get("VLLM_FL_FLAGOS_BLACKLIST", "").split(",")
        self.model.on = OPERATORS - set(off)
        self.starts = self.stays = not self.model.on & set(self.deadly_at_start)
        self.behaviour.toy = self.model
        self.behaviour.healthy = True
        return super()._launch()


@pytest.fixture(autouse=True)
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.01)


@pytest.fixture(scope="module")
def reference() -> ReferenceTrace:
    with StandInServer(Behaviour(toy=ToyModel())) as served:
        endpoint = Endpoint(base_url=served.url, model="toy")
        return collect_reference(
            endpoint, PROFILE, PROMPTS, stack="slow", top_k=20, progress=lambda *_: None
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return toy_project(tmp_path)


@dataclass(frozen=True, kw_only=True)
class Bench:
    candidate: Candidate
    gate: Oracle
    image: BeadsImage
    engine: FakeEngine

    @property
    def starts(self) -> int:
        return len(self.engine.started)


def bench(
    project: Project, reference: ReferenceTrace, model: Beads, *, limit_s: float = 5, **image: Any
) -> Bench:
    (cell,) = select(project.matrix, ["abacus", "poet"])
    port = free_port()  # of slot 0, which comes after the cell's own
    cell = replace(cell, model=cell.model.model_copy(update={"port": port - 1}))
    serving = BeadsImage(port=port, model=model, **image)
    model.image = serving
    engine = FakeEngine(serving, when_started=serving.seen.append)
    candidate = toy_candidate(project, cell, engine, OPERATORS)
    gate = Oracle(
        reference=reference,
        limits=LogitLimits(),
        prompts=PROMPTS,
        model=cell.served_name,
        stack="fast",
        limit_s=limit_s,
        retry_wait_s=0.01,
    )
    return Bench(candidate=candidate, gate=gate, image=serving, engine=engine)


Ends = Callable[[Bench, frozenset[str]], ProbeAnswer]


def restarted_once(on: Bench, enabled: frozenset[str]) -> ProbeAnswer:
    return restarted(on.candidate, on.gate).probe(enabled, 0)


def switched_once(on: Bench, enabled: frozenset[str]) -> ProbeAnswer:
    with switched(on.candidate, on.gate) as prober:
        return prober.probe(enabled, 0)


def test_a_probe_is_the_released_configuration_with_exactly_its_operators_off(
    project: Project,
) -> None:
    (cell,) = select(project.matrix, ["abacus", "poet"])
    probed = probe_cell(cell, "fast", frozenset({"sin", "mm"}), slot=2, shares_gpu=False)
    assert cell.environment("fast")["VLLM_FL_FLAGOS_BLACKLIST"] == "gelu,softmax"
    assert probed.environment("fast") == {
        **cell.environment("fast"),
        "VLLM_FL_FLAGOS_BLACKLIST": "mm,sin",
    }
    assert probed.serve_arguments("fast") == cell.serve_arguments("fast")
    assert probed.model.port == cell.model.port + 3  # the cell's own stays free


def test_probes_that_share_a_gpu_get_a_fixed_part_of_its_memory(project: Project) -> None:
    (cell,) = select(project.matrix, ["abacus", "poet"])
    probed = probe_cell(cell, "fast", frozenset(), slot=0, shares_gpu=True)
    added = probed.serve_arguments("fast").items() - cell.serve_arguments("fast").items()
    assert dict(added) == {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2 << 30}


def test_a_stack_without_a_library_is_refused(project: Project) -> None:
    (cell,) = select(project.matrix, ["abacus", "poet"])
    with pytest.raises(StageRefusedError, match="the stack slow loads no operator library"):
        probe_cell(cell, "slow", frozenset(), slot=0, shares_gpu=False)


def test_a_restarted_probe_serves_judges_and_leaves_nothing_behind(
    project: Project, reference: ReferenceTrace
) -> None:
    on = bench(project, reference, Beads(wrong={"silu"}))
    prober = restarted(on.candidate, on.gate)
    wrong = prober.probe(frozenset({"silu", "mm"}), 0)
    right = prober.probe(OPERATORS - {"silu"}, 0)
    assert (wrong.verdict, right.verdict) == ("fail", "pass")
    assert wrong.detail.startswith("mean KL")
    assert wrong.numbers["prefill together kl_mean"] > 1
    assert right.numbers["prefill together top1_agreement"] == 1
    assert (wrong.starts, on.starts) == (1, 2)
    assert on.engine.containers == {}
    off = [found["VLLM_FL_FLAGOS_BLACKLIST"] for found in on.image.configured]
    assert off == ["gelu,pow,sin,softmax", "silu"]
    assert on.engine.started[0].run.environment["FLAGRELEASE_OPERATORS_PROBE"] == "1"


def test_an_operator_that_kills_the_engine_at_its_start_is_a_crash(
    project: Project, reference: ReferenceTrace
) -> None:
    log = "INFO: loading\nRuntimeError: illegal memory access"
    on = bench(project, reference, Beads(), deadly_at_start={"pow"}, log=log)
    answer = restarted(on.candidate, on.gate).probe(frozenset({"pow"}), 0)
    assert answer.verdict == "crash"
    assert answer.detail.endswith("RuntimeError: illegal memory access")


def test_an_operator_that_kills_the_engine_at_a_request_is_a_crash(
    project: Project, reference: ReferenceTrace, capsys: pytest.CaptureFixture[str]
) -> None:
    on = bench(project, reference, Beads(deadly={"pow"}), log="ValueError: bad shape\nbye")
    answer = restarted(on.candidate, on.gate).probe(frozenset({"pow"}), 0)
    assert (answer.verdict, answer.detail) == ("crash", "ValueError: bad shape")
    capsys.readouterr()


FULL_DISK = "OSError: [Errno 28] No space left on device"


def test_no_operator_is_blamed_for_a_fault_of_the_machine_at_the_start(
    project: Project, reference: ReferenceTrace
) -> None:
    on = bench(project, reference, Beads(), deadly_at_start={"pow"}, log=FULL_DISK)
    with pytest.raises(WorldError, match="the server died after 0 s while starting"):
        restarted(on.candidate, on.gate).probe(frozenset({"pow"}), 0)


@pytest.mark.parametrize("ends", [restarted_once, switched_once])
@pytest.mark.parametrize("model", [Beads(deadly={"pow"}), Beads(numbing={"pow"})])
def test_no_operator_is_blamed_for_a_fault_of_the_machine_while_it_is_asked(
    project: Project, reference: ReferenceTrace, model: Beads, ends: Ends
) -> None:
    on = bench(project, reference, model, log="up\n", memory_events="oom_kill 1\n")
    with pytest.raises(WorldError, match="for want of memory"):
        ends(on, frozenset({"pow"}))
    assert on.engine.containers == {}


def test_a_container_that_somebody_ended_is_no_crash_of_its_operators(
    project: Project, reference: ReferenceTrace
) -> None:
    model = Beads(deadly={"pow"})
    on = bench(project, reference, model)
    ended = on.image.removed

    def end_with_its_container() -> None:
        for container in on.engine.containers.values():
            container.ended = "ended with exit code 137"
        ended()

    on.image.removed = end_with_its_container  # type: ignore[method-assign]
    with pytest.raises(WorldError, match="its container ended with exit code 137"):
        restarted(on.candidate, on.gate).probe(frozenset({"pow"}), 0)


def test_a_server_that_hangs_is_killed_at_the_limit(
    project: Project, reference: ReferenceTrace
) -> None:
    slow = Behaviour(seconds=0.6)
    on = bench(project, reference, Beads(), limit_s=0.2, behaviour=slow)
    answer = restarted(on.candidate, on.gate).probe(frozenset({"mm"}), 0)
    assert (answer.verdict, answer.detail) == ("hang", "not judged within 0 s")


def test_a_switched_engine_is_started_once_with_nothing_on(
    project: Project, reference: ReferenceTrace
) -> None:
    on = bench(project, reference, Beads(wrong={"silu"}))
    with switched(on.candidate, on.gate) as prober:
        answers = [prober.probe(e, 0) for e in (OPERATORS, frozenset[str](), OPERATORS - {"silu"})]
    assert [answer.verdict for answer in answers] == ["fail", "pass", "pass"]
    assert [answer.starts for answer in answers] == [1, 0, 0]
    assert on.image.configured[0]["VLLM_FL_FLAGOS_BLACKLIST"] == ",".join(sorted(OPERATORS))
    assert on.engine.started[0].run.environment["VLLM_SERVER_DEV_MODE"] == "1"
    asked = [path for path, _ in on.image.behaviour.requests]
    assert asked.count("/collective_rpc") == asked.count("/reset_prefix_cache") == 3
    assert on.engine.containers == {}


def test_operators_that_are_on_and_never_called_are_no_pass(
    project: Project, reference: ReferenceTrace
) -> None:
    on = bench(project, reference, Beads(wrong={"silu"}, runs=False))
    with (
        switched(on.candidate, on.gate) as prober,
        pytest.raises(StageRefusedError, match="none of them was called") as refused,
    ):
        prober.probe(OPERATORS, 0)
    assert refused.value.hint.endswith("--restart")


def test_a_switched_engine_that_was_killed_is_started_again(
    project: Project, reference: ReferenceTrace, capsys: pytest.CaptureFixture[str]
) -> None:
    on = bench(project, reference, Beads(deadly={"pow"}))
    with switched(on.candidate, on.gate) as prober:
        answers = [prober.probe(frozenset({name}), 0) for name in ("mm", "pow", "sin")]
    assert [answer.verdict for answer in answers] == ["pass", "crash", "pass"]
    assert [answer.starts for answer in answers] == [1, 0, 1]
    capsys.readouterr()


def test_an_engine_that_died_behind_its_server_is_a_crash_of_the_set_that_was_on(
    project: Project, reference: ReferenceTrace, capsys: pytest.CaptureFixture[str]
) -> None:
    log = "WARNING: OSError: Too many open files may come\nValueError: bad shape\nbye"
    on = bench(project, reference, Beads(numbing={"pow"}), log=log)
    with switched(on.candidate, on.gate) as prober:
        answers = [prober.probe(frozenset({name}), 0) for name in ("mm", "pow", "sin")]
    assert [answer.verdict for answer in answers] == ["pass", "crash", "pass"]
    assert answers[1].detail == "ValueError: bad shape"
    assert [answer.starts for answer in answers] == [1, 0, 1]
    capsys.readouterr()


def test_what_an_engine_died_of_between_probes_is_not_held_against_the_next_set(
    project: Project, reference: ReferenceTrace
) -> None:
    on = bench(project, reference, Beads())
    with switched(on.candidate, on.gate) as prober:
        first = prober.probe(frozenset({"mm"}), 0)
        on.image.behaviour.healthy = False
        second = prober.probe(frozenset({"sin"}), 0)
    assert (first.verdict, second.verdict, second.starts) == ("pass", "pass", 1)


def test_an_unsound_reference_ends_the_search(project: Project, reference: ReferenceTrace) -> None:
    missing = replace(reference, profile=PROFILE.model_copy(update={"min_positions": 10_000}))
    on = bench(project, missing, Beads())
    with pytest.raises(StageRefusedError, match="positions were scored"):
        restarted(on.candidate, on.gate).probe(frozenset(), 0)


def test_a_search_finds_the_culprit_by_switching_and_confirms_it_by_restarts(
    project: Project, reference: ReferenceTrace
) -> None:
    on = bench(project, reference, Beads(wrong={"silu"}))
    subject = Subject(
        cell=on.candidate.cell.id,
        stack="fast",
        image=on.candidate.image,
        weights="",
        library="bead_operators",
        settings="",
        node="here",
    )
    task = BisectTask(
        subject=subject,
        operators=tuple(sorted(OPERATORS)),
        likely=frozenset(),
        level="fail",
        budget_s=60,
        cache=on.candidate.folder / "probes",
    )
    says: list[str] = []
    with switched(on.candidate, on.gate) as searcher:
        result = bisect(task, searcher, restarted(on.candidate, on.gate), says.append)
    assert (result.status, result.failing_sets, result.exclusion) == (
        "found",
        (("silu",),),
        ("silu",),
    )
    assert result.starts == on.starts == 4
    assert {check.probe.answer.starts for check in result.checks} == {1}
    patch = exclusion_patch(
        project.matrix_path.read_text("utf-8"), "abacus/poet", exclusions_of(result)
    )
    subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=project.root, check=True)
    (cell,) = select(read_matrix(project.matrix_path), ["abacus", "poet"])
    assert cell.excluded_operators("fast")["silu"].evidence == result.id


def test_the_reference_is_asked_once_and_read_from_disk_then(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.probes.pregate.PROFILES", {"quick": PROFILE})
    (cell,) = select(project.matrix, ["abacus", "poet"])
    cell = replace(cell, model=cell.model.model_copy(update={"port": free_port()}))
    whole = ServingImage(port=cell.model.port, behaviour=Behaviour(toy=ToyModel()))
    engine = FakeEngine(whole)
    candidate = toy_candidate(project, cell, engine, OPERATORS)
    engine.served = ServingImage(
        port=cell.model.port, behaviour=Behaviour(completion_status=500, checks_model_name=False)
    )
    with pytest.raises(StageRefusedError, match="slow itself is unsound"):
        references(candidate, ["quick"], PROMPTS, lambda _: None)
    engine.served = whole
    first = references(candidate, ["quick"], PROMPTS, lambda _: None)
    second = references(candidate, ["quick"], PROMPTS, lambda _: None)
    assert len(engine.started) == 2, "what a failing reference answered was kept"
    assert first["quick"].answers == second["quick"].answers


@dataclass
class Listing(FakeImage):
    code: int
    output: str

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        assert command[0] == "env"
        assert command[-1] == "bead_operators"
        assert "FAST=1" in command
        return self.code, self.output


def test_the_image_itself_says_which_operators_there_are(project: Project) -> None:
    (cell,) = select(project.matrix, ["abacus", "poet"])
    printed = json.dumps({"operators": ["mm", "sin"], "packages": {"beads": "1.0"}})
    engine = FakeEngine(Listing(0, f"a warning\n{printed}\n"))
    found = library_in(engine, "registry.test/poet@sha256:ab", cell, "fast")
    assert found == Library(operators=("mm", "sin"), packages={"beads": "1.0"})
    broken = FakeEngine(Listing(1, "ModuleNotFoundError: no beads\n"))
    with pytest.raises(StageRefusedError) as refused:
        library_in(broken, "registry.test/poet@sha256:ab", cell, "fast")
    assert str(refused.value) == (
        "registry.test/poet@sha256:ab: the operators of bead_operators could not be listed: exit code 1\n"
        "ModuleNotFoundError: no beads\n"
        "hint: the library must be importable in the image, on this node"
    )


def test_a_worker_that_has_other_operators_on_than_it_was_told_is_refused() -> None:
    with (
        StandInServer(Behaviour(toy=Beads())) as served,
        pytest.raises(StageRefusedError, match=r"worker 0 has other operators on .*: sin"),
    ):
        switch_operators(served.url, on={"mm"}, off=OPERATORS - {"mm", "sin"}, timeout_s=5)


def test_a_server_without_the_development_endpoint_is_refused() -> None:
    with (
        StandInServer(Behaviour(completion_status=404, checks_model_name=False)) as served,
        pytest.raises(StageRefusedError) as refused,
    ):
        switch_operators(served.url, on=(), off=(), timeout_s=5)
    assert "the operators could not be switched: HTTP 4" in str(refused.value)
    assert refused.value.hint == "probe with restarted engines instead: --restart"


def test_operators_that_cannot_be_registered_are_a_crash(
    project: Project, reference: ReferenceTrace
) -> None:
    """The worker's hook refuses, and vLLM answers HTTP 500."""
    on = bench(project, reference, Beads(unregistrable={"pow"}), log="OperatorError: without pow")
    with switched(on.candidate, on.gate) as prober:
        answers = [prober.probe(frozenset({name}), 0) for name in ("pow", "mm")]
    assert [(answer.verdict, answer.starts) for answer in answers] == [("crash", 1), ("pass", 1)]
    assert answers[0].detail == "OperatorError: without pow"


def test_a_server_that_is_gone_while_it_is_switched_is_told() -> None:
    with pytest.raises(WorldError, match="stopped answering while its operators were switched"):
        switch_operators(f"http://127.0.0.1:{free_port()}", on=(), off=(), timeout_s=1)
