"""promote between registries in memory."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import StageRefusedError, WorldError
from pipeline.record import (
    BuildResult,
    BuiltImage,
    ImageIdentity,
    PromoteResult,
    Record,
    StageName,
    StageRecord,
    Stages,
    Status,
)
from pipeline.stages.promote import GATES, promote
from pipeline.world.registry import Manifest
from tests.fakes_registry import FakeRegistry, push_image, push_index

STAGING = "flagrelease/staging/cpu/smollm2"
PUBLIC = "flagrelease/flagrelease_cpu_smollm2"
LAYERS = (b"one layer", b"another layer")


def stage(status: Status, result: object) -> StageRecord[Any]:
    """A stage whose result promote does not read, except build's."""
    return StageRecord[Any](
        key="k",
        parts={},
        status=status,
        node="n",
        started="2026-11-24T00:00:00Z",
        seconds=1.0,
        result=result,
    )


def build_result(digest: str) -> BuildResult:
    image = BuiltImage(
        layer="model",
        repository=STAGING,
        key="k",
        config_digest="sha256:c",
        manifest_digest=digest,
        size_bytes=1,
        stored_bytes=1,
        built=True,
        seconds=1.0,
    )
    return BuildResult(images=(image,), builder="docker 20.10")


def record_of(digest: str, *, published: bool = True) -> Record:
    stages = Stages.model_construct(
        render=stage("passed", object()),
        build=stage("passed", build_result(digest)),
        smoke=stage("passed", object()),
        accuracy=stage("passed", object()),
    )
    image = ImageIdentity(
        config_digest="sha256:c", manifest_digest=digest, base="b", published=published
    )
    return Record.model_construct(
        cell="cpu/smollm2",
        chip="cpu",
        model="smollm2",
        release="2026.11.1",
        image=image,
        stages=stages,
    )


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
    result = promoted(record_of(digest), registry, registry)
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
    result = promoted(record_of(digest), registry, registry)
    manifest = registry.manifest(STAGING, digest)
    assert manifest is not None
    sizes_bytes = sum(blob.size_bytes for blob in manifest.blobs)
    assert (result.mounted_blobs, result.copied_bytes) == (0, sizes_bytes)
    assert registry.head(PUBLIC, "2026.11.1") == digest


def test_promote_streams_between_two_registries_and_skips_what_is_there() -> None:
    source, target = FakeRegistry("staging.test"), FakeRegistry("public.test")
    digest = push_image(source, STAGING, *LAYERS)
    target.put_blob(PUBLIC, LAYERS[0])
    result = promoted(record_of(digest), source, target)
    stored_bytes = source.stored_bytes(STAGING, digest)
    assert result.copied_bytes == stored_bytes - len(LAYERS[0])
    assert result.reference == f"public.test/{PUBLIC}@{digest}"
    assert target.manifest(PUBLIC, "2026.11.1") == source.manifest(STAGING, digest)


def test_promote_copies_an_index_with_its_children_before_it() -> None:
    registry = FakeRegistry()
    children = (push_image(registry, STAGING, b"a"), push_image(registry, STAGING, b"b"))
    digest = push_index(registry, STAGING, *children)
    registry.changes.clear()
    promoted(record_of(digest), registry, registry)
    written = [change for change in registry.changes if not change.startswith("mount")]
    assert written == [
        *(f"manifest {PUBLIC}@{child}" for child in children),
        f"manifest {PUBLIC}@{digest}",
        f"tag {PUBLIC}:2026.11.1",
    ]


def test_promote_copies_nothing_when_the_tag_names_the_digest_already() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    first = promoted(record_of(digest), registry, registry)
    registry.changes.clear()
    second = promoted(record_of(digest), registry, registry)
    assert registry.changes == []
    assert (second.digest, second.reference) == (first.digest, first.reference)
    assert (second.mounted_blobs, second.copied_bytes) == (0, 0)


def test_promote_refuses_a_tag_of_another_digest_before_anything_is_copied() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    other = push_image(registry, PUBLIC, b"older", tag="2026.11.1")
    registry.changes.clear()
    with pytest.raises(StageRefusedError) as caught:
        promoted(record_of(digest), registry, registry)
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
        promoted(record_of(digest), registry, registry)
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
        promoted(record_of(digest), registry, registry)
    assert registry.tags(PUBLIC) == ()


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(
    "status", ["failed", "inconclusive", "invalid", "not_run", "not_applicable"]
)
def test_promote_refuses_when_a_gate_did_not_pass(gate: StageName, status: Status) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    passed = record_of(digest)
    kept = passed.stages.get(gate)
    assert kept is not None
    refused = passed.with_stage(gate, stage(status, kept.result))
    with pytest.raises(StageRefusedError) as caught:
        promoted(refused, registry, registry)
    assert caught.value.details == f"{gate}: {status}"
    assert registry.tags(PUBLIC) == ()


def test_promote_refuses_a_record_in_which_nothing_ran_and_names_every_reason() -> None:
    registry = FakeRegistry()
    empty = Record.model_construct(
        cell="cpu/smollm2", chip="cpu", model="smollm2", release="2026.11.1"
    )
    with pytest.raises(StageRefusedError) as caught:
        promoted(empty, registry, registry)
    assert str(caught.value) == (
        "cpu/smollm2: promoting release 2026.11.1:"
        " a gate did not pass for exactly this image\n"
        "render: not_run\n"
        "build: not_run\n"
        "smoke: not_run\n"
        "accuracy: not_run\n"
        "image: no registry has given it a manifest digest\n"
        "hint: run `nox -s release -- cpu smollm2` until these stages pass"
    )


def test_promote_refuses_an_image_that_build_did_not_make() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    other = stage("passed", build_result("sha256:other"))
    with pytest.raises(StageRefusedError, match="but build made sha256:other"):
        promoted(record_of(digest).with_stage("build", other), registry, registry)


def test_promote_refuses_an_image_from_a_base_that_cannot_be_pulled() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(StageRefusedError, match="published: false"):
        promoted(record_of(digest, published=False), registry, registry)


def test_promote_refuses_a_passed_stage_without_a_result() -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    hollow = record_of(digest).with_stage("smoke", stage("passed", None))
    with pytest.raises(StageRefusedError, match="smoke: passed, but its result is missing"):
        promoted(hollow, registry, registry)


def test_promote_says_when_staging_lost_the_image() -> None:
    registry = FakeRegistry()
    with pytest.raises(WorldError, match="the manifest is not in flagrelease/staging"):
        promoted(record_of(f"sha256:{'0' * 64}"), registry, registry)
