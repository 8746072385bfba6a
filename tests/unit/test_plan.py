"""What runs again and why. Records are made by walking the real parts and keys, never by hand."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline import project as project_module
from pipeline.about import about
from pipeline.keys import UNKNOWN, changes, key_of
from pipeline.layers import runtime_parts
from pipeline.matrix_file import read_matrix
from pipeline.names import names
from pipeline.parts import Inputs, parts_of
from pipeline.plan import Action, decide, plan, reused, stages_until
from pipeline.project import Project
from pipeline.record import STAGES, Record, StageName, Stages
from pipeline.results import CardResult
from tests.projects import (
    ROOT,
    Changes,
    committed,
    copied_project,
    one_cell,
    own_templates,
    project_in,
    with_keys_reversed,
)
from tests.record_parts import passed, sha256
from tests.releases import RELEASE, finished, told_blocks

BUILDER, NODE = "docker-classic 20.10.24", "Test Processor x2"
LONGER: Changes = {("models", "smollm2", "serve", "max_model_len"): 4096}
WAIVER = {"cell": "cpu/smollm2", "by": "Ada", "reason": "few items", "expires": "2026-12-31"}
WAIVED: Changes = {("cells", "waivers"): [WAIVER]}
ALL_BUT_RENDER = STAGES[1:]


def inputs_of(project: Project, *, builder: str | None = BUILDER) -> Inputs:
    cell = one_cell(project, "cpu", "smollm2")
    target = project.matrix.targets["local"]
    found = project.inputs(cell, target, builder=builder, node=NODE)
    return replace(found, blocks=told_blocks)


def recorded(project: Project, release: str = RELEASE) -> Record:
    """The record that a whole release of cpu/smollm2 in this project would have left."""
    cell, inputs, record = one_cell(project, "cpu", "smollm2"), inputs_of(project), finished()
    done = Stages()
    for stage in STAGES:
        parts = parts_of(stage, cell, inputs, done, release)
        assert UNKNOWN not in parts.values()
        found = record.stages.get(stage)
        assert found is not None
        known = found.model_copy(update={"key": key_of(parts), "parts": dict(parts)})
        done = done.model_copy(update={stage: known})
    return record.model_copy(update={"stages": done, "release": release})


def planned(
    project: Project, *past: Record, release: str = RELEASE, inputs: Inputs | None = None
) -> dict[StageName, Action]:
    cell = one_cell(project, "cpu", "smollm2")
    actions = plan(
        [cell],
        {cell.id: inputs or inputs_of(project)},
        {cell.id: past},
        release=release,
        until="publish",
    )
    assert [action.stage for action in actions] == list(STAGES)
    return {action.stage: action for action in actions}


def runs(actions: dict[StageName, Action]) -> dict[StageName, tuple[str, ...]]:
    return {stage: action.reasons for stage, action in actions.items() if action.kind == "run"}


def test_what_was_never_run_runs_and_knows_the_keys_that_need_no_earlier_stage() -> None:
    actions = planned(committed())
    assert runs(actions) == dict.fromkeys(STAGES, ("never run",))
    known = [stage for stage, action in actions.items() if action.key]
    assert known == ["render", "build", "weights"]


def test_when_nothing_changed_everything_is_reused_from_its_release(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    record = recorded(project)
    cell = one_cell(project, "cpu", "smollm2")
    assert planned(project, record) == {
        stage: Action(
            cell=cell.id,
            stage=stage,
            kind="reuse",
            reasons=("nothing changed",),
            key=key_of(found.parts),
            source=RELEASE,
            parts=found.parts,
        )
        for stage in STAGES
        if (found := record.stages.get(stage))
    }


def test_one_changed_serve_value_names_itself_and_leaves_the_runtime_alone(
    tmp_path: Path,
) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    before = copied_project(tmp_path / "before")
    after = copied_project(tmp_path / "after", LONGER)
    conf = "images/cpu/smollm2/conf/serve"
    assert runs(planned(after, recorded(before))) == {
        "render": ("matrix.yaml: models.smollm2.serve.max_model_len 2048 → 4096",),
        "build": (f"{conf}/bfloat16.yaml changed", f"{conf}/float32.yaml changed"),
        "smoke": ("image changes",),
        "accuracy": ("image changes",),
        "performance": ("image changes",),
        "rehearse": ("blocks changes", "image changes"),
        "card": ("measurements changes", "what was asked for changed"),
        "attest": ("card changes", "image changes"),
        "promote": ("image changes",),
        "publish": ("cards changes",),
    }
    cell = one_cell(after, "cpu", "smollm2")
    assert runtime_parts(cell, after.files(cell)) == runtime_parts(cell, before.files(cell))


def test_an_earlier_record_with_the_same_key_is_reused_after_a_change_is_taken_back(
    tmp_path: Path,
) -> None:
    project = copied_project(tmp_path)
    older = recorded(project, "2026.11.1.1")
    newer = recorded(copied_project(tmp_path, LONGER), "2026.11.2.1")
    actions = planned(copied_project(tmp_path), newer, older, release="2026.11.3.1")
    # These records name one image, so the newest measurements of it count.
    assert {stage: action.source for stage, action in actions.items() if action.source} == {
        "render": "2026.11.1.1",
        "build": "2026.11.1.1",
        **dict.fromkeys(("weights", "smoke", "accuracy", "performance"), "2026.11.2.1"),
        "rehearse": "2026.11.1.1",
    }
    build = reused(actions["build"], (newer, older))
    assert build == older.stages.build


def test_another_release_needs_its_own_card_and_promotion_and_nothing_else(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    assert runs(planned(project, recorded(project), release="2026.11.25.1")) == {
        "card": ("release 2026.11.24.1 → 2026.11.25.1",),
        "attest": ("card changes",),
        "promote": ("tag 2026.11.24.1 → 2026.11.25.1",),
        "publish": ("cards changes",),
    }


@pytest.mark.parametrize("status", ["failed", "inconclusive", "invalid", "not_run"])
def test_a_stage_that_did_not_pass_runs_again(tmp_path: Path, status: str) -> None:
    project = copied_project(tmp_path)
    record = recorded(project)
    accuracy = record.stages.accuracy
    assert accuracy is not None
    ended = record.with_stage(
        "accuracy", accuracy.model_copy(update={"status": status, "result": None})
    )
    assert runs(planned(project, ended)) == {
        "accuracy": (f"{status} in {RELEASE}",),
        "rehearse": ("blocks changes",),
        "card": ("measurements changes",),
        "attest": ("card changes",),
        "publish": ("cards changes",),
    }


def test_an_undecided_accuracy_is_not_asked_again_where_somebody_waives_it(tmp_path: Path) -> None:
    project = copied_project(tmp_path, WAIVED)
    record = recorded(project)
    accuracy = record.stages.accuracy
    assert accuracy is not None
    waived = accuracy.model_copy(update={"status": "inconclusive"})
    actions = planned(project, record.with_stage("accuracy", waived))
    assert {action.kind for action in actions.values()} == {"reuse"}


def test_a_stage_that_does_not_apply_is_not_tried_again(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    record = recorded(project)
    publish = record.stages.publish
    assert publish is not None
    ended = record.with_stage("publish", publish.model_copy(update={"status": "not_applicable"}))
    assert runs(planned(project, ended)) == {}


def test_a_changed_template_is_named(tmp_path: Path) -> None:
    record = recorded(copied_project(tmp_path))
    template = own_templates(tmp_path) / "runtime.venv.Dockerfile.j2"
    template.write_text(template.read_text("utf-8") + "LABEL a=b\n", "utf-8")
    actions = runs(planned(project_in(tmp_path), record))
    assert actions["render"] == ("templates/runtime.venv.Dockerfile.j2 changed",)
    assert actions["build"] == ("images/cpu/Dockerfile changed",)
    assert "weights" not in actions


def test_a_changed_template_of_cards_touches_no_image(tmp_path: Path) -> None:
    record = recorded(copied_project(tmp_path))
    template = own_templates(tmp_path) / "card.en.md.j2"
    template.write_text(template.read_text("utf-8") + "\nThe end.\n", "utf-8")
    assert runs(planned(project_in(tmp_path), record)) == {
        "card": ("templates/card.en.md.j2 changed",),
        "attest": ("card changes",),
        "publish": ("cards changes",),
    }


def test_a_new_requirement_lock_builds_anew_without_rendering(tmp_path: Path) -> None:
    record = recorded(copied_project(tmp_path))
    lock = tmp_path / "images/cpu/requirements.lock"
    lock.write_text(lock.read_text() + "# changed\n")
    actions = runs(planned(project_in(tmp_path), record))
    assert "render" not in actions
    assert actions["build"] == ("images/cpu/requirements.lock changed",)


def test_a_file_edited_by_hand_is_rendered_again(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    record = recorded(project)
    path = "images/cpu/smollm2/conf/serve.yaml"
    (tmp_path / path).write_text("edited: true\n")
    assert runs(planned(project, record)) == {"render": (f"{path} differs from its render",)}
    (tmp_path / path).unlink()
    assert runs(planned(project, record)) == {"render": (f"{path} differs from its render",)}


def test_another_engine_builds_anew_and_no_engine_is_not_known_yet(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    record = recorded(project)
    newer = planned(project, record, inputs=inputs_of(project, builder="docker-classic 28.0.1"))
    assert newer["build"].reasons == ("builder docker-classic 20.10.24 → docker-classic 28.0.1",)
    none = planned(project, record, inputs=inputs_of(project, builder=None))
    assert (none["build"].kind, none["build"].key) == ("run", None)
    assert none["build"].reasons == ("builder changes",)


def test_another_node_measures_anew_the_same_image(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    elsewhere = replace(inputs_of(project), node="Other Processor x8")
    moved = (f"node {NODE} → Other Processor x8",)
    assert runs(planned(project, recorded(project), inputs=elsewhere)) == {
        "smoke": moved,
        "accuracy": moved,
        "performance": moved,
        "rehearse": ("blocks changes", *moved),
        "card": ("measurements changes",),
        "attest": ("card changes",),
        "publish": ("cards changes",),
    }


def test_a_changed_margin_judges_anew_and_serves_nothing_else(tmp_path: Path) -> None:
    record = recorded(copied_project(tmp_path))
    stricter = copied_project(tmp_path, {("gate", "margin"): 0.05})
    actions = runs(planned(stricter, record))
    assert actions["accuracy"] == (
        f"matrix.yaml: gate.margin {committed().matrix.gate.margin} → 0.05",
    )
    assert set(actions) == {"accuracy", "rehearse", "card", "attest", "publish"}


def test_new_weights_leave_the_image_alone(tmp_path: Path) -> None:
    record = recorded(copied_project(tmp_path))
    lock = tmp_path / "matrix.lock"
    text = lock.read_text("utf-8")
    old = project_in(tmp_path).lock.weights["smollm2"].revision
    assert old is not None
    lock.write_text(text.replace(old, sha256("another wheel")), "utf-8")
    actions = runs(planned(project_in(tmp_path), record))
    assert actions["weights"] == ("weights revision changed",)
    assert actions["smoke"] == ("weights changes",)
    measured = {"weights", "smoke", "accuracy", "performance"}
    assert set(actions) == {*measured, "rehearse", "card", "attest", "publish"}


def test_keys_do_not_depend_on_the_order_of_keys(tmp_path: Path) -> None:
    record = recorded(copied_project(tmp_path))
    path = tmp_path / "matrix.yaml"
    matrix = with_keys_reversed(yaml.safe_load(path.read_text("utf-8")))
    path.write_text(yaml.safe_dump(matrix, sort_keys=False), "utf-8")
    swapped = project_in(tmp_path)
    assert list(swapped.matrix.chips) != list(committed().matrix.chips)
    assert runs(planned(swapped, record)) == {}
    assert key_of({"a": "1", "b": "2"}) == key_of({"b": "2", "a": "1"})


def test_settings_of_the_machine_enter_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied_project(tmp_path)
    record = recorded(project)
    for name in ("PIP_CERT", "PIP_INDEX_URL", "PIP_FIND_LINKS", "https_proxy"):
        monkeypatch.setenv(name, "/another/value")
    assert runs(planned(project_in(tmp_path), record)) == {}


def test_until_stops_after_its_stage() -> None:
    assert stages_until("weights") == ("render", "build", "weights")
    assert stages_until("publish") == STAGES


def lifted(project: Project) -> Changes:
    """What takes away each obstacle that is reckoned: every accelerator of the matrix serves all in one node."""
    large = {
        "memory_gb": 80,
        "cards_per_node": 64,
        "unknown": {},
        "dtypes": ["float16", "bfloat16", "float32", "fp8"],
    }
    chips = project.matrix.chips
    accelerators = {chip: block for chip, block in chips.items() if block.smi is not None}
    return {
        **{("chips", chip, key): value for chip in accelerators for key, value in large.items()},
        **{
            ("chips", chip, "packages", "vllm"): chips["nvidia"].vllm
            for chip, block in accelerators.items()
            if not block.vllm
        },
    }


@pytest.mark.parametrize(("changes", "least"), [({}, 90), (lifted(committed()), 150)])
def test_a_plan_over_the_whole_matrix_takes_less_than_half_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Changes, least: int
) -> None:
    """Of the present one, and of one in which no cell is excluded that an accelerator could serve."""
    monkeypatch.setattr(project_module, "read_matrix", read_matrix)  # each time, as a command does
    project = copied_project(tmp_path, changes)
    shutil.copytree(ROOT / "images", tmp_path / "images", dirs_exist_ok=True)
    assert len(project.cells) >= least
    target = project.matrix.targets["local"]
    past = {"cpu/smollm2": (recorded(project),)}
    seconds = []
    for _ in range(3):  # a busy machine may disturb one
        started = time.process_time()  # of this process alone
        fresh = Project(tmp_path, tmp_path / "matrix.yaml")
        fresh.templates._environment.bytecode_cache = None  # a plan compiles them itself
        inputs = {c.id: fresh.inputs(c, target, builder=BUILDER, node=NODE) for c in fresh.cells}
        actions = plan(fresh.cells, inputs, past, release=RELEASE, until="publish")
        seconds.append(time.process_time() - started)
        assert len(actions) == len(fresh.cells) * len(STAGES)
        if seconds[-1] < 0.5:
            return
    raise AssertionError(f"it took {seconds} s")


def test_changes_tell_values_and_hide_hashes() -> None:
    old = {"a": "1", "b": sha256("b"), "chips.cpu.python": "3.11", "same": "x", "gone": "y"}
    new = {"a": "2", "b": sha256("c"), "chips.cpu.python": "3.12", "same": "x", "image": UNKNOWN}
    assert changes(old, new) == (
        "a 1 → 2",
        "b changed",
        "matrix.yaml: chips.cpu.python 3.11 → 3.12",
        "gone y → (none)",
        "image changes",
    )
    assert changes({}, {"file": sha256("a")}) == ("file is new",)
    assert changes({"file": sha256("a")}, {}) == ("file is gone",)
    assert changes({"a": "x" * 80}, {"a": "y"}) == (f"a {'x' * 47}… → y",)


def test_a_decision_names_the_newest_release_that_tried() -> None:
    failed = finished().with_stage(
        "smoke", passed(CardResult(files=())).model_copy(update={"status": "failed"})
    )
    action = decide("smoke", "cpu/smollm2", {}, (failed,))
    assert (action.kind, action.reasons) == ("run", (f"failed in {RELEASE}",))


def test_an_action_without_its_record_is_a_bug() -> None:
    action = Action(
        cell="cpu/smollm2", stage="smoke", kind="reuse", reasons=(), key="k", source="1"
    )
    with pytest.raises(LookupError, match="cpu/smollm2 smoke: no record of 1"):
        reused(action, ())


def test_the_words_of_the_card_come_from_the_same_project(tmp_path: Path) -> None:
    project = copied_project(tmp_path)
    cell = one_cell(project, "cpu", "smollm2")
    target = project.matrix.targets["local"]
    assert inputs_of(project).about == about(cell, names(cell, target), target="local")
