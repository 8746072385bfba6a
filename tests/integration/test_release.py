"""What a finished release leaves, and what changes, kills and faults do to it. Real engine, registry and vLLM."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from pipeline.canonical import sha256_bytes
from pipeline.record import STAGES, RecordStore
from pipeline.world.registry import Registry
from tests.integration.conftest import CELL, Checkout, copy_of_project

pytestmark = pytest.mark.integration
REPOSITORY = "flagrelease/flagrelease_cpu_smollm2"


def our_containers() -> list[str]:
    listed = subprocess.run(
        [
            "docker",
            "ps",
            "--all",
            "--filter",
            "label=io.flagos.release.owner",
            "--format",
            "{{.Names}}",
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return listed.stdout.split()


def public_digest(tag: str) -> str | None:
    registry = Registry("127.0.0.1:5000")
    try:
        return registry.head(REPOSITORY, tag)
    finally:
        registry.close()


def kinds(plan_json: str) -> dict[str, str]:
    return {action["stage"]: action["kind"] for action in json.loads(plan_json)}


def test_every_stage_of_a_release_passes_and_the_registry_has_its_digest(
    released: Checkout,
) -> None:
    record = released.record()
    assert {stage: found.status for stage in STAGES if (found := record.stages.get(stage))} == (
        dict.fromkeys(STAGES, "passed")
    )
    assert record.image is not None
    assert public_digest(record.release) == record.image.manifest_digest
    assert our_containers() == []


def test_the_accuracy_rows_hold_no_text_and_every_item_of_both_stacks(released: Checkout) -> None:
    result = released.record().stages.accuracy
    assert result is not None
    assert result.result is not None
    content = (released.folder() / "items.jsonl").read_bytes()
    rows = [json.loads(line) for line in content.splitlines()]
    assert sha256_bytes(content) == result.result.items_sha256
    judged = result.result.verdict.benchmarks
    assert len(rows) == 2 * sum(one.n * one.runs for one in judged)
    assert result.result.verdict.items >= 300
    assert max(len(str(value)) for row in rows for value in row.values()) <= 64


def test_the_published_card_is_the_card_of_the_record(released: Checkout) -> None:
    record = released.record()
    assert record.stages.card is not None
    assert record.stages.card.result is not None
    hashes = {file.path: file.sha256 for file in record.stages.card.result.files}
    hub = released.root / "out" / "hub" / record.about.hub_name
    assert sha256_bytes((hub / "README.md").read_bytes()) == hashes["card.en.md"]
    assert sha256_bytes((hub / "README_zh.md").read_bytes()) == hashes["card.zh.md"]


def test_the_released_image_verifies_and_is_refused_where_a_signature_is_asked_for(
    released: Checkout,
) -> None:
    record = released.record()
    image = f"{record.about.repository}:{record.release}"
    ran = released.run("verify", image, "--unsigned")
    assert ran.code == 0, ran.output
    refused = released.run("verify", image)
    assert (refused.code, "--unsigned" in refused.output) == (2, True)


def test_a_fresh_checkout_makes_the_published_card(released: Checkout, tmp_path: Path) -> None:
    fresh, record = copy_of_project(tmp_path), released.record()
    ran = fresh.run("card", *CELL, "--release", record.release)
    assert ran.code == 0, ran.output
    assert "record.json: fetched from" in ran.output
    made = fresh.root / released.folder().relative_to(released.root)
    hub = released.root / "out" / "hub" / record.about.hub_name
    assert (made / "card.en.md").read_bytes() == (hub / "README.md").read_bytes()
    assert (made / "card.zh.md").read_bytes() == (hub / "README_zh.md").read_bytes()


def test_a_second_release_does_nothing_in_under_two_seconds(changed: Checkout) -> None:
    before = changed.record()
    ran = changed.run("release", *CELL)
    assert ran.code == 0, ran.output
    assert ran.output.count("reused") == len(STAGES)
    assert changed.record() == before
    assert ran.seconds < 2


def test_a_changed_serve_value_runs_what_reads_it_and_keeps_the_runtime(changed: Checkout) -> None:
    changed.edit("serve: {max_model_len: 2048}", "serve: {max_model_len: 4096}")
    plan = changed.run("plan", *CELL)
    assert "matrix.yaml: models.smollm2.serve.max_model_len 2048 → 4096" in plan.output
    assert kinds(changed.run("plan", *CELL, "--json").output) == {
        **dict.fromkeys(STAGES, "run"),
        "weights": "reuse",
    }
    before = changed.record()
    ran = changed.run("build", *CELL)
    assert ran.code == 0, ran.output
    assert before.stages.build is not None
    assert before.stages.build.result is not None
    old = {image.layer: image for image in before.stages.build.result.images}
    build = changed.record().stages.build
    assert build is not None
    assert build.result is not None
    new = {image.layer: image for image in build.result.images}
    assert new["runtime"].manifest_digest == old["runtime"].manifest_digest
    assert new["model"].manifest_digest != old["model"].manifest_digest
    assert [layer for layer, image in new.items() if image.built] in (["model"], [])


def test_a_waived_accuracy_goes_out_under_its_waiver_and_its_card_says_so(
    changed: Checkout,
) -> None:
    """The verdict of the finished release is made undecided; all after it runs or is looked at for real."""
    record = changed.record()
    accuracy = record.stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    verdict = accuracy.result.verdict.model_copy(update={"status": "inconclusive"})
    result = accuracy.result.model_copy(update={"verdict": verdict})
    undecided = accuracy.model_copy(update={"status": "inconclusive", "result": result})
    RecordStore(changed.root / "out").write(record.with_stage("accuracy", undecided))
    waiver = "{cell: cpu/smollm2, by: Ada Example, reason: a test of waivers, expires: 2099-12-31}"
    changed.edit("\ncells:\n", f"\ncells:\n  waivers: [{waiver}]\n")
    ran = changed.run("release", *CELL)
    assert ran.code == 0, ran.output
    released = changed.record()
    assert released.release != record.release
    assert released.stages.accuracy is not None
    assert (released.stages.accuracy.status, released.stages.accuracy.reused_from) == (
        "inconclusive",
        record.release,
    )
    sentence = "Ada Example waives it until 2099-12-31: a test of waivers"
    assert released.stages.promote is not None
    assert released.stages.promote.result is not None
    assert released.stages.promote.result.waiver == sentence
    hub = changed.root / "out" / "hub" / released.about.hub_name
    assert "> **Accuracy: undecided.**" in (hub / "README.md").read_text("utf-8")
    assert "> **精度：未定。**" in (hub / "README_zh.md").read_text("utf-8")
    image = f"{released.about.repository}:{released.release}"
    verified = changed.run("verify", image, "--unsigned")
    assert verified.code == 0, verified.output
    assert sentence in verified.output.replace("\n", " ")
    assert changed.run("cards", "--check").code == 0
    again = changed.run("release", *CELL)
    assert again.output.count("reused") == len(STAGES)


def test_a_server_that_is_healthy_but_cannot_complete_is_refused(changed: Checkout) -> None:
    """Without this variable vLLM compiles at the first log-probabilities, and the image has no compiler."""
    changed.edit(', TORCHDYNAMO_DISABLE: "1"', "")
    before = public_digest(changed.record().release)
    ran = changed.run("release", *CELL)
    assert ran.code == 1, ran.output
    assert "FAIL logprobs: HTTP 500" in ran.output
    assert "InvalidCxxCompiler" in ran.output
    record = changed.record()
    assert record.stages.smoke is not None
    assert record.stages.smoke.status == "failed"
    assert record.stages.promote is None
    assert public_digest(record.release) in (None, before)
    refused = changed.run("promote", *CELL)
    assert refused.code == 1, refused.output
    assert our_containers() == []


def test_a_release_killed_in_smoke_resumes_and_leaves_no_container(changed: Checkout) -> None:
    changed.edit(
        "expect: Paris, tokens_per_s_floor: 3}\n    benchmarks: [g",
        "expect: Paris, tokens_per_s_floor: 2}\n    benchmarks: [g",
    )
    changed.kill_when(lambda: bool(our_containers()), "smoke", *CELL, within_s=60)
    assert our_containers() != []
    ran = changed.run("smoke", *CELL)
    assert ran.code == 0, ran.output
    assert our_containers() == []
    assert ran.output.count("reused") == 3


def test_a_taken_port_is_named_before_anything_starts(changed: Checkout) -> None:
    with socket.create_server(("127.0.0.1", 9010)):
        ran = changed.run("smoke", *CELL, "--again")
    assert ran.code == 4, ran.output
    assert "port 9010 is in use on this machine" in ran.output
    assert our_containers() == []


def test_truncated_weights_are_noticed_and_fetched_again(changed: Checkout) -> None:
    path = changed.root / "out" / "share" / "smollm2" / "model.safetensors"
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(b"short")
    ran = changed.run("weights", *CELL)
    assert ran.code == 0, ran.output
    assert "what it left is gone" in ran.output
    assert path.read_bytes() == whole
    assert our_containers() == []


def test_a_registry_that_is_down_is_named_and_nothing_is_promoted(changed: Checkout) -> None:
    changed.edit("registry: 127.0.0.1:5000/flagrelease", "registry: 127.0.0.1:5999/flagrelease")
    ran = changed.run("release", *CELL)
    assert ran.code == 4, ran.output
    assert "127.0.0.1:5999" in ran.output
    assert "./bootstrap" in ran.output
