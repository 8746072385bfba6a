"""promote between registries in memory."""

from __future__ import annotations

import pytest

from pipeline.errors import StageRefusedError, WorldError
from pipeline.record import Record, StageName, Status
from pipeline.results import PromoteResult
from pipeline.stages.promote import GATES, MEASURED, promote
from pipeline.world.oci import Manifest
from tests.fakes_registry import (
    FakeRegistry,
    bare_record,
    build_result,
    gated_record,
    push_image,
    push_index,
    stage,
)

STAGING = "flagrelease/staging/cpu/smollm2"
PUBLIC = "flagrelease/flagrelease_cpu_smollm2"
LAYERS = (b"one layer", b"another layer")


def promoted(record: Record, source: FakeRegistry, target: FakeRegistry) -> PromoteResult:
    return promote(
        record,
        source=source,
        target=target,
        source_repository=STAGING,
        target_repository=PUBLIC,
        tag="2026.11.1",
    )


def test_promote_mounts_blobs_then_puts_the_manifest_by_digest_and_the_tag_last() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    registry.changes.clear()
    result = promoted(gated_record(digest), registry, registry)
    assert result == PromoteResult(
        reference=f"registry.test/{PUBLIC}@{digest}",
        tag="2026.11.1",
        digest=digest,
        copied_bytes=0,
        mounted_blobs=3,
    )
    kinds = [change.partition(" ")[0] for change in registry.changes]
    assert kinds == ["mount", "mount", "mount", "manifest", "tag"]
    assert registry.head(PUBLIC, "2026.11.1") == digest


def test_promote_streams_blobs_that_the_registry_does_not_mount() -> None:
    registry = FakeRegistry(mounts_blobs=False)
    digest = push_image(registry, STAGING, *LAYERS)
    result = promoted(gated_record(digest), registry, registry)
    manifest = registry.manifest(STAGING, digest)
    assert manifest is not None
    sizes_bytes = sum(blob.size_bytes for blob in manifest.blobs)
    assert (result.mounted_blobs, result.copied_bytes) == (0, sizes_bytes)
    assert registry.head(PUBLIC, "2026.11.1") == digest


def test_promote_streams_between_two_registries_and_skips_what_is_there() -> None:
    source, target = FakeRegistry("staging.test"), FakeRegistry("public.test")
    digest = push_image(source, STAGING, *LAYERS)
    target.put_blob(PUBLIC, LAYERS[0])
    result = promoted(gated_record(digest), source, target)
    stored_bytes = source.stored_bytes(STAGING, digest)
    assert result.copied_bytes == stored_bytes - len(LAYERS[0])
    assert result.reference == f"public.test/{PUBLIC}@{digest}"
    assert target.manifest(PUBLIC, "2026.11.1") == source.manifest(STAGING, digest)


def test_promote_copies_an_index_with_its_children_before_it() -> None:
    registry = FakeRegistry()
    children = (push_image(registry, STAGING, b"a"), push_image(registry, STAGING, b"b"))
    digest = push_index(registry, STAGING, *children)
    registry.changes.clear()
    promoted(gated_record(digest), registry, registry)
    written = [change for change in registry.changes if not change.startswith("mount")]
    assert written == [
        *(f"manifest {PUBLIC}@{child}" for child in children),
        f"manifest {PUBLIC}@{digest}",
        f"tag {PUBLIC}:2026.11.1",
    ]


def test_promote_copies_nothing_when_the_tag_names_the_digest_already() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    first = promoted(gated_record(digest), registry, registry)
    registry.changes.clear()
    second = promoted(gated_record(digest), registry, registry)
    assert registry.changes == []
    assert (second.digest, second.reference) == (first.digest, first.reference)
    assert (second.mounted_blobs, second.copied_bytes) == (0, 0)


def test_promote_refuses_a_tag_of_another_digest_before_anything_is_copied() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    other = push_image(registry, PUBLIC, b"older", tag="2026.11.1")
    registry.changes.clear()
    with pytest.raises(StageRefusedError) as caught:
        promoted(gated_record(digest), registry, registry)
    assert registry.changes == []
    assert str(caught.value) == (
        f"registry.test/{PUBLIC}: promoting {digest}: the tag 2026.11.1 exists and names {other}\n"
        "release 2026.11.1 of cpu/smollm2\n"
        "hint: published tags do not move; release under a new name"
    )


class TagTakenMeanwhile(FakeRegistry):
    """Another release writes the tag while the manifest is on its way."""

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        digest = super().put_manifest(repository, reference, body, media_type)
        if repository == PUBLIC and reference == digest:
            theirs = Manifest(digest="sha256:theirs", media_type=media_type, body=b"{}")
            self.repositories[PUBLIC].manifests[theirs.digest] = theirs
            self.repositories[PUBLIC].tags["2026.11.1"] = theirs.digest
        return digest


def test_promote_does_not_move_a_tag_that_was_taken_while_it_copied() -> None:
    registry = TagTakenMeanwhile()
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(StageRefusedError, match="exists and names sha256:theirs"):
        promoted(gated_record(digest), registry, registry)
    assert registry.head(PUBLIC, "2026.11.1") == "sha256:theirs"


class ChangesMediaTypes(FakeRegistry):
    """A proxy that turns manifests into something else."""

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        found = super().manifest(repository, reference)
        if found is None or repository != PUBLIC:
            return found
        return Manifest(digest=found.digest, media_type="text/plain", body=found.body)


def test_promote_writes_no_tag_when_what_it_reads_back_differs() -> None:
    registry = ChangesMediaTypes()
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(WorldError, match="is not the one that was sent"):
        promoted(gated_record(digest), registry, registry)
    assert registry.tags(PUBLIC) == ()


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(
    "status", ["failed", "inconclusive", "invalid", "not_run", "not_applicable"]
)
def test_promote_refuses_when_a_gate_did_not_pass(gate: StageName, status: Status) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    passed = gated_record(digest)
    kept = passed.stages.get(gate)
    assert kept is not None
    refused = passed.with_stage(gate, stage(status, kept.result, image="sha256:c"))
    with pytest.raises(StageRefusedError) as caught:
        promoted(refused, registry, registry)
    assert caught.value.details == f"{gate}: {status}"
    assert registry.tags(PUBLIC) == ()


def test_promote_refuses_a_record_in_which_nothing_ran_and_names_every_reason() -> None:
    registry = FakeRegistry()
    empty = bare_record("cpu/smollm2")
    with pytest.raises(StageRefusedError) as caught:
        promoted(empty, registry, registry)
    assert str(caught.value) == (
        "cpu/smollm2: promoting release 2026.11.1:"
        " a gate did not pass for exactly this image\n"
        "render: not_run\n"
        "build: not_run\n"
        "smoke: not_run\n"
        "accuracy: not_run\n"
        "rehearse: not_run\n"
        "image: no registry has given it a manifest digest\n"
        "hint: run `nox -s release -- cpu smollm2` until these stages pass"
    )


def test_promote_refuses_what_failed_its_rehearsal_and_takes_what_could_have_none() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    record = gated_record(digest)
    failed = record.model_copy(
        update={
            "stages": record.stages.model_copy(
                update={"rehearse": stage("failed", None, image="sha256:c")}
            )
        }
    )
    with pytest.raises(StageRefusedError, match="a gate did not pass") as caught:
        promoted(failed, registry, registry)
    assert caught.value.details == "rehearse: failed"
    impossible = stage("not_applicable", None, image="sha256:c")
    promoted(
        record.model_copy(
            update={"stages": record.stages.model_copy(update={"rehearse": impossible})}
        ),
        registry,
        registry,
    )


def test_promote_refuses_an_image_that_build_did_not_make() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    other = stage("passed", build_result("sha256:other"))
    with pytest.raises(StageRefusedError, match="but build made sha256:other"):
        promoted(gated_record(digest).with_stage("build", other), registry, registry)


def test_promote_refuses_an_image_from_a_base_that_cannot_be_pulled() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(StageRefusedError, match="published: false"):
        promoted(gated_record(digest, published=False), registry, registry)


def test_promote_refuses_a_passed_stage_without_a_result() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    hollow = gated_record(digest).with_stage("smoke", stage("passed", None))
    with pytest.raises(StageRefusedError, match="smoke: passed, but its result is missing"):
        promoted(hollow, registry, registry)


def test_promote_says_when_staging_lost_the_image() -> None:
    registry = FakeRegistry()
    with pytest.raises(WorldError, match="the manifest is not in flagrelease/staging"):
        promoted(gated_record(f"sha256:{'0' * 64}"), registry, registry)


@pytest.mark.parametrize("gate", MEASURED)
def test_promote_refuses_when_a_gate_passed_for_the_image_before_this_one(gate: StageName) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    for parts, named in (({"image": "sha256:old"}, "sha256:old"), ({}, "none")):
        older = stage("passed", build_result(digest), **parts)
        with pytest.raises(StageRefusedError) as caught:
            promoted(gated_record(digest).with_stage(gate, older), registry, registry)
        assert caught.value.details == f"{gate}: passed for image {named}, this one is sha256:c"
