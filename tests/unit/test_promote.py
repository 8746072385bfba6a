"""promote between registries in memory."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from pipeline.admission import Candidate, Release
from pipeline.errors import NoAnswerError, StageRefusedError, WorldError
from pipeline.gates import GATES, MEASURED
from pipeline.record import Record, StageName, Status
from pipeline.release_index import INDEX_TYPE, ReleaseIndex, TagMove
from pipeline.results import PromoteResult
from pipeline.stages.promote import promote
from pipeline.waiver import Waiver
from pipeline.world.indexes import Indexes
from pipeline.world.journal import open_journals
from pipeline.world.oci import OCI_INDEX, Manifest
from pipeline.world.registry_artifacts import artifact, put_artifact, referrers
from pipeline.world.shelf import Shelf
from pipeline.world.tag_moves import finish_or_undo
from tests.fakes_registry import (
    FakeRegistry,
    bare_record,
    build_result,
    gated_record,
    push_image,
    push_index,
    sealed,
    stage,
)
from tests.records import cpu_about

STAGING = "flagrelease/staging/cpu/smollm2"
PUBLIC = "flagrelease/flagrelease_cpu_smollm2"
INDEXES = "flagrelease/releases"
RELEASE = "2026.11.1"
TODAY = date(2026, 11, 24)
LAYERS = (b"one layer", b"another layer")


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "promotions"


def candidate(
    record: Record,
    source: FakeRegistry,
    *,
    staging: str = STAGING,
    public: str = PUBLIC,
    alias: str | None = None,
) -> Candidate:
    return Candidate(
        record=record,
        source=source,
        source_repository=staging,
        public=public,
        alias=alias,
    )


def shelf_of(target: FakeRegistry, journals: Path) -> Shelf:
    return Shelf(registry=target, index_repository=INDEXES, journals=journals)


def promoted(
    record: Record,
    source: FakeRegistry,
    target: FakeRegistry,
    journals: Path,
) -> PromoteResult:
    one = candidate(record, source)
    release = Release(name=RELEASE, candidates=[one], left_out={})
    results = promote(release, shelf_of(target, journals), today=TODAY, say=lambda _: None)
    return results[record.cell]


def cells(registry: FakeRegistry, *names: str) -> list[Candidate]:
    """Images of cells, staged, with records whose gates passed for them."""
    found = []
    for name in names:
        staging = f"flagrelease/staging/{name}"
        digest = push_image(registry, staging, name.encode())
        public = f"flagrelease/flagrelease_{name.replace('/', '_')}"
        found.append(
            candidate(gated_record(digest, name), registry, staging=staging, public=public)
        )
    return found


def index_of(registry: FakeRegistry, journals: Path, release: str = RELEASE) -> ReleaseIndex:
    index = shelf_of(registry, journals).index(release)
    assert index is not None
    return index


def test_promote_copies_by_digest_then_stores_the_index_then_tags_in_order(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    registry.changes.clear()
    result = promoted(gated_record(digest), registry, registry, journals)
    index = registry.head(INDEXES, f"rel-{RELEASE}")
    assert result == PromoteResult(
        reference=f"registry.test/{PUBLIC}@{digest}",
        tag=RELEASE,
        digest=digest,
        copied_bytes=0,
        mounted_blobs=3,
        index=f"registry.test/{INDEXES}@{index}",
    )
    kinds = [change.partition(" ")[0] for change in registry.changes]
    assert kinds == [*["mount"] * 3, "manifest", *["blob"] * 2, "manifest", *["tag"] * 3]
    assert [change for change in registry.changes if change.startswith("tag")] == [
        f"tag {INDEXES}:rel-{RELEASE}",
        f"tag {PUBLIC}:{RELEASE}",
        f"tag {PUBLIC}:latest",
    ]
    assert open_journals(journals) == ()


def test_the_index_names_cells_records_and_every_tag_with_what_it_named_before(
    journals: Path,
) -> None:
    registry = FakeRegistry()
    older = push_image(registry, PUBLIC, b"older", tag="latest")
    digest = push_image(registry, STAGING, *LAYERS)
    promoted(gated_record(digest), registry, registry, journals)
    index = index_of(registry, journals)
    assert [(cell.cell, cell.repository, cell.digest) for cell in index.cells] == [
        ("cpu/smollm2", PUBLIC, digest)
    ]
    assert index.moves == (
        TagMove(repository=PUBLIC, tag=RELEASE, before=None, after=digest),
        TagMove(repository=PUBLIC, tag="latest", before=older, after=digest),
    )


def test_promote_streams_blobs_that_the_registry_does_not_mount(journals: Path) -> None:
    registry = FakeRegistry(mounts_blobs=False)
    digest = push_image(registry, STAGING, *LAYERS)
    result = promoted(gated_record(digest), registry, registry, journals)
    manifest = registry.manifest(STAGING, digest)
    assert manifest is not None
    sizes_bytes = sum(blob.size_bytes for blob in manifest.blobs)
    assert (result.mounted_blobs, result.copied_bytes) == (0, sizes_bytes)
    assert registry.head(PUBLIC, RELEASE) == digest


def test_promote_streams_between_two_registries_and_skips_what_is_there(journals: Path) -> None:
    source, target = FakeRegistry("staging.test"), FakeRegistry("public.test")
    digest = push_image(source, STAGING, *LAYERS)
    target.put_blob(PUBLIC, LAYERS[0])
    result = promoted(gated_record(digest), source, target, journals)
    stored_bytes = source.stored_bytes(STAGING, digest)
    assert result.copied_bytes == stored_bytes - len(LAYERS[0])
    assert result.reference == f"public.test/{PUBLIC}@{digest}"
    assert target.manifest(PUBLIC, RELEASE) == source.manifest(STAGING, digest)


def test_promote_copies_an_index_with_its_children_before_it(journals: Path) -> None:
    registry = FakeRegistry()
    children = (push_image(registry, STAGING, b"a"), push_image(registry, STAGING, b"b"))
    digest = push_index(registry, STAGING, *children)
    registry.changes.clear()
    promoted(gated_record(digest), registry, registry, journals)
    written = [change for change in registry.changes if change.startswith(f"manifest {PUBLIC}")]
    assert written == [f"manifest {PUBLIC}@{one}" for one in (*children, digest)]


@pytest.mark.parametrize("lists", [True, False])
def test_what_refers_to_an_image_goes_with_it(journals: Path, lists: bool) -> None:
    source = FakeRegistry("staging.test", lists_referrers=lists)
    target = FakeRegistry("public.test", lists_referrers=not lists)
    digest = push_image(source, STAGING, *LAYERS)
    subject = source.manifest(STAGING, digest)
    assert subject is not None
    bill = artifact("application/vnd.cyclonedx+json", b'{"bom":1}', subject)
    put_artifact(source, STAGING, bill, b'{"bom":1}')
    signature = f"sha256-{digest[7:]}.sig"
    push_image(source, STAGING, b"signed", tag=signature)
    promoted(gated_record(digest), source, target, journals)
    (listed,) = referrers(target, PUBLIC, digest)
    assert (listed.digest, listed.artifact_type) == (bill.digest, "application/vnd.cyclonedx+json")
    assert target.head(PUBLIC, signature) == source.head(STAGING, signature)


def test_the_long_name_is_a_second_repository(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    one = candidate(gated_record(digest), registry, alias="flagrelease/long-name")
    release = Release(name=RELEASE, candidates=[one], left_out={})
    promote(release, shelf_of(registry, journals), today=TODAY, say=lambda _: None)
    assert registry.head("flagrelease/long-name", RELEASE) == digest
    assert registry.tags("flagrelease/long-name") == (RELEASE,)


def test_promote_writes_nothing_when_all_of_it_is_public_already(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    first = promoted(gated_record(digest), registry, registry, journals)
    registry.changes.clear()
    second = promoted(gated_record(digest), registry, registry, journals)
    assert registry.changes == []
    assert second == first.model_copy(update={"mounted_blobs": 0})


def test_a_cell_that_comes_later_is_added_to_the_index_and_the_others_stay(journals: Path) -> None:
    registry = FakeRegistry()
    first, second = cells(registry, "cpu/a", "cpu/b")
    shelf = shelf_of(registry, journals)
    for one in (first, second):
        promote(
            Release(name=RELEASE, candidates=[one], left_out={}),
            shelf,
            today=TODAY,
            say=lambda _: None,
        )
    index = index_of(registry, journals)
    assert [cell.cell for cell in index.cells] == ["cpu/a", "cpu/b"]
    assert shelf.due(index) == ()


def test_promote_refuses_a_version_tag_of_another_digest_before_anything_is_copied(
    journals: Path,
) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    other = push_image(registry, PUBLIC, b"older", tag=RELEASE)
    registry.changes.clear()
    with pytest.raises(StageRefusedError) as caught:
        promoted(gated_record(digest), registry, registry, journals)
    assert registry.changes == []
    assert str(caught.value) == (
        "registry.test: promoting: version tags exist and name other images\n"
        f"{PUBLIC}:{RELEASE} names {other}, not {digest}\n"
        "hint: published tags do not move; release under a new name"
    )


def test_one_conflict_stops_all_cells_before_the_commit(journals: Path) -> None:
    registry = FakeRegistry()
    both = cells(registry, "cpu/a", "cpu/b")
    push_image(registry, both[1].public, b"older", tag=RELEASE)
    with pytest.raises(StageRefusedError, match="version tags exist"):
        promote(
            Release(name=RELEASE, candidates=both, left_out={}, allow_partial=True),
            shelf_of(registry, journals),
            today=TODAY,
            say=lambda _: None,
        )
    assert registry.tags(both[0].public) == registry.tags(INDEXES) == ()


class TagTakenMeanwhile(FakeRegistry):
    """Another release writes the tag while the manifest is on its way."""

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        digest = super().put_manifest(repository, reference, body, media_type)
        if repository == PUBLIC and reference == digest:
            theirs = Manifest(digest="sha256:theirs", media_type=media_type, body=b"{}")
            self.content[PUBLIC].manifests[theirs.digest] = theirs
            self.content[PUBLIC].tags[RELEASE] = theirs.digest
        return digest


def test_promote_does_not_move_a_tag_that_was_taken_while_it_copied(journals: Path) -> None:
    registry = TagTakenMeanwhile()
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(StageRefusedError, match=f"{PUBLIC}:{RELEASE} names sha256:theirs"):
        promoted(gated_record(digest), registry, registry, journals)
    assert registry.head(PUBLIC, RELEASE) == "sha256:theirs"
    assert registry.tags(INDEXES) == ()
    assert open_journals(journals) == ()


class ReadsTheJournal(FakeRegistry):
    """Notes, as a tag is set, which moves the journal on disk has by then, and whether it has the commit."""

    def __init__(self, journals: Path) -> None:
        super().__init__()
        self.journals = journals
        self.noted: dict[str, tuple[set[str], bool]] = {}

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        if reference in (RELEASE, "latest"):
            (journal,) = open_journals(self.journals)
            events = tuple(journal.events())
            moves = [move for event in events for move in event.get("moves", ())]
            written = {f"{move['repository']}:{move['tag']}" for move in moves}
            is_committed = any(event["event"] == "commit" for event in events)
            self.noted[f"{repository}:{reference}"] = (written, is_committed)
        return super().put_manifest(repository, reference, body, media_type)


def test_every_move_is_in_the_journal_before_it_is_made_and_aliases_after_all_versions(
    journals: Path,
) -> None:
    registry = ReadsTheJournal(journals)
    both = cells(registry, "cpu/a", "cpu/b")
    release = Release(name=RELEASE, candidates=both, left_out={})
    promote(release, shelf_of(registry, journals), today=TODAY, say=lambda _: None)
    versions, aliases = ([f"{one.public}:{tag}" for one in both] for tag in (RELEASE, "latest"))
    assert list(registry.noted) == [*versions, *aliases]
    assert all(registry.noted[tag] == ({*versions}, True) for tag in versions)
    assert all(registry.noted[tag] == ({*versions, *aliases}, True) for tag in aliases)


class TagTakenAfterTheCommit(FakeRegistry):
    """A promoter of another host, which our lock does not reach, writes both tags once our index is there."""

    theirs = ""

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        digest = super().put_manifest(repository, reference, body, media_type)
        if reference.startswith("rel-"):
            self.theirs = push_image(self, PUBLIC, b"theirs", tag=RELEASE)
            push_image(self, PUBLIC, b"theirs", tag="latest")
        return digest


def test_promote_never_overwrites_what_another_host_tagged_after_the_commit(journals: Path) -> None:
    registry, said = TagTakenAfterTheCommit(), list[str]()
    digest = push_image(registry, STAGING, *LAYERS)
    release = Release(
        name=RELEASE, candidates=[candidate(gated_record(digest), registry)], left_out={}
    )
    with pytest.raises(StageRefusedError, match="version tags exist and name other images"):
        promote(release, shelf_of(registry, journals), today=TODAY, say=said.append)
    tagged = [registry.head(PUBLIC, tag) for tag in (RELEASE, "latest")]
    assert tagged == [registry.theirs] * 2
    assert f"{PUBLIC}:latest names {registry.theirs} by now; left alone" in said
    assert open_journals(journals) == ()


class ChangesMediaTypes(FakeRegistry):
    """A proxy that turns manifests into something else."""

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        found = super().manifest(repository, reference)
        if found is None or repository != PUBLIC:
            return found
        return Manifest(digest=found.digest, media_type="text/plain", body=found.body)


def test_promote_writes_no_tag_when_what_it_reads_back_differs(journals: Path) -> None:
    registry = ChangesMediaTypes()
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(WorldError, match="is not the one that was sent"):
        promoted(gated_record(digest), registry, registry, journals)
    assert registry.tags(PUBLIC) == registry.tags(INDEXES) == ()


class Breaks(FakeRegistry):
    """Stops answering at one write."""

    def __init__(self, at: str) -> None:
        super().__init__()
        self.at = at

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        if reference == self.at:
            raise NoAnswerError("could not ask", where=self.host)
        return super().put_manifest(repository, reference, body, media_type)


def test_a_registry_that_breaks_after_the_commit_is_finished_by_the_next_run(
    journals: Path,
) -> None:
    registry = Breaks("latest")
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(NoAnswerError):
        promoted(gated_record(digest), registry, registry, journals)
    assert registry.tags(PUBLIC) == (RELEASE,)
    registry.at = ""
    promoted(gated_record(digest), registry, registry, journals)
    assert registry.tags(PUBLIC) == (RELEASE, "latest")
    assert open_journals(journals) == ()


def test_a_checkout_without_the_journal_finishes_from_the_index(
    journals: Path, tmp_path: Path
) -> None:
    registry = Breaks(RELEASE)
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(NoAnswerError):
        promoted(gated_record(digest), registry, registry, journals)
    assert registry.tags(PUBLIC) == ()
    registry.at = ""
    promoted(gated_record(digest), registry, registry, tmp_path / "another")
    assert registry.tags(PUBLIC) == (RELEASE, "latest")


def test_a_registry_that_breaks_at_the_commit_leaves_the_question_to_the_next_run(
    journals: Path,
) -> None:
    registry = Breaks(f"rel-{RELEASE}")
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(NoAnswerError):
        promoted(gated_record(digest), registry, registry, journals)
    assert len(open_journals(journals)) == 1
    assert registry.tags(PUBLIC) == ()
    registry.at = ""
    promoted(gated_record(digest), registry, registry, journals)
    assert registry.tags(PUBLIC) == (RELEASE, "latest")
    assert len(list(journals.glob("*.jsonl"))) == 2


class Killed(BaseException):
    """What `kill -9` looks like from inside: nothing after it runs, no `except` of ours sees it."""


class KilledAt(FakeRegistry):
    """Dies before its n-th write, or right after it."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1
        self.is_before = True

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        self._count(before=True)
        digest = super().put_manifest(repository, reference, body, media_type)
        self._count(before=False)
        return digest

    def _count(self, *, before: bool) -> None:
        if before == self.is_before:
            self.left -= 1
            if self.left == 0:
                raise Killed


def tags_of(registry: FakeRegistry, both: list[Candidate]) -> list[str | None]:
    return [registry.head(one.public, tag) for tag in (RELEASE, "latest") for one in both]


@pytest.mark.parametrize("is_before", [True, False])
def test_killed_at_any_write_all_tags_are_old_or_all_are_new(
    tmp_path: Path, is_before: bool
) -> None:
    """Two cells: 2 manifests, the index by digest, the commit, 4 tags; the ninth write never comes."""
    seen = []
    for write in range(1, 10):
        registry, journals = KilledAt(), tmp_path / f"{write}"
        both = cells(registry, "cpu/a", "cpu/b")
        registry.left, registry.is_before = write, is_before
        release = Release(name=RELEASE, candidates=both, left_out={})
        shelf = shelf_of(registry, journals)
        try:
            promote(release, shelf, today=TODAY, say=lambda _: None)
        except Killed:
            registry.left = -1
            finish_or_undo(
                journals, Indexes(registry=registry, index_repository=INDEXES), lambda _: None
            )
        digests = [one.record.image.manifest_digest for one in both if one.record.image]
        tags = tags_of(registry, both)
        assert tags in ([None] * 4, digests * 2)
        assert open_journals(journals) == ()
        seen.append(tags == digests * 2)
    first_new = 5 if is_before else 4
    assert seen == [write >= first_new for write in range(1, 10)]


def test_all_cells_or_none_and_every_reason_at_once(journals: Path) -> None:
    registry = FakeRegistry()
    good, bad = cells(registry, "cpu/a", "cpu/b")
    failed = sealed(bad.record.with_stage("smoke", stage("failed", None, image="sha256:c")))
    release = Release(
        name=RELEASE,
        candidates=[good, candidate(failed, registry, public=bad.public)],
        left_out={"cpu/c": "build: not done"},
    )
    with pytest.raises(StageRefusedError) as caught:
        promote(release, shelf_of(registry, journals), today=TODAY, say=lambda _: None)
    assert str(caught.value) == (
        "promoting release 2026.11.1: 2 of 3 cells may not go out, so none does\n"
        "cpu/c: build: not done\n"
        "cpu/b: smoke: failed\n"
        "hint: mend these, or add --allow-partial, which promotes the others and records who was left out"
    )
    assert registry.tags(good.public) == registry.tags(INDEXES) == ()


def test_a_part_is_promoted_when_asked_and_the_index_says_who_is_missing(journals: Path) -> None:
    registry = FakeRegistry()
    (good,) = cells(registry, "cpu/a")
    left_out = {"cpu/b": "smoke: failed"}
    release = Release(name=RELEASE, candidates=[good], left_out=left_out, allow_partial=True)
    results = promote(release, shelf_of(registry, journals), today=TODAY, say=lambda _: None)
    assert results["cpu/a"].left_out == ("cpu/b: smoke: failed",)
    assert index_of(registry, journals).left_out == ("cpu/b: smoke: failed",)
    assert registry.tags(good.public) == (RELEASE, "latest")


WAIVER = Waiver(cell="cpu/smollm2", by="Ada", reason="too few items", expires=TODAY)


def waived(record: Record, waiver: Waiver = WAIVER) -> Record:
    """Sealed with a waiver, as attest does it."""
    about = cpu_about().model_copy(update={"waiver": waiver})
    return sealed(record.model_copy(update={"about": about}))


@pytest.mark.parametrize("status", ["inconclusive", "not_run"])
def test_a_waiver_stands_in_for_accuracy_that_was_not_decided_and_is_recorded(
    journals: Path, status: Status
) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    undecided = gated_record(digest).with_stage("accuracy", stage(status, None, image="sha256:c"))
    result = promoted(waived(undecided), registry, registry, journals)
    assert result.waiver == "Ada waives it until 2026-11-24: too few items"
    assert index_of(registry, journals).cells[0].waiver == result.waiver


@pytest.mark.parametrize("status", ["failed", "invalid", "not_applicable"])
def test_a_waiver_never_stands_in_for_accuracy_that_failed(journals: Path, status: Status) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    wrong = gated_record(digest).with_stage("accuracy", stage(status, None, image="sha256:c"))
    with pytest.raises(StageRefusedError) as caught:
        promoted(waived(wrong), registry, registry, journals)
    told = "; the waiver of Ada stands in for inconclusive and not_run alone"
    assert caught.value.details == f"accuracy: {status}{told}"


def test_a_waiver_never_stands_in_for_smoke_nor_after_its_day_nor_for_another_image(
    journals: Path,
) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    passed, over = gated_record(digest), WAIVER.model_copy(update={"expires": date(2026, 11, 23)})
    cases = {
        "smoke: not_run": (passed.with_stage("smoke", stage("not_run", None)), WAIVER),
        "accuracy: the waiver of Ada ended on 2026-11-23": (
            passed.with_stage("accuracy", stage("inconclusive", None, image="sha256:c")),
            over,
        ),
        "accuracy: passed for image sha256:old, this one is sha256:c": (
            passed.with_stage("accuracy", stage("inconclusive", None, image="sha256:old")),
            WAIVER,
        ),
    }
    for reason, (record, waiver) in cases.items():
        with pytest.raises(StageRefusedError) as caught:
            promoted(waived(record, waiver), registry, registry, journals)
        assert reason in caught.value.details.splitlines()


def test_a_waiver_that_was_not_needed_is_not_recorded(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    assert promoted(waived(gated_record(digest)), registry, registry, journals).waiver is None


def test_a_waiver_that_was_given_after_the_seal_is_refused_for_no_card_says_it(
    journals: Path,
) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    known = waived(gated_record(digest).with_stage("accuracy", stage("inconclusive", None)))
    later = WAIVER.model_copy(update={"reason": "another one"})
    about = known.about.model_copy(update={"waiver": later})
    with pytest.raises(StageRefusedError, match="a gate did not pass") as caught:
        promoted(known.model_copy(update={"about": about}), registry, registry, journals)
    assert "attest: the record was changed since" in caught.value.details


def test_the_index_is_a_document_of_its_own_type(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    promoted(gated_record(digest), registry, registry, journals)
    manifest = registry.manifest(INDEXES, f"rel-{RELEASE}")
    assert manifest is not None
    assert manifest.content.artifact_type == INDEX_TYPE
    assert manifest.media_type != OCI_INDEX


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(
    "status", ["failed", "inconclusive", "invalid", "not_run", "not_applicable"]
)
def test_promote_refuses_when_a_gate_did_not_pass(
    journals: Path, gate: StageName, status: Status
) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    passed = gated_record(digest)
    kept = passed.stages.get(gate)
    assert kept is not None
    refused = sealed(passed.with_stage(gate, stage(status, kept.result, image="sha256:c")))
    with pytest.raises(StageRefusedError) as caught:
        promoted(refused, registry, registry, journals)
    assert caught.value.details == f"{gate}: {status}"
    assert registry.tags(PUBLIC) == ()


def test_promote_refuses_a_record_in_which_nothing_ran_and_names_every_reason(
    journals: Path,
) -> None:
    registry = FakeRegistry()
    empty = bare_record("cpu/smollm2")
    with pytest.raises(StageRefusedError) as caught:
        promoted(empty, registry, registry, journals)
    assert str(caught.value) == (
        "cpu/smollm2: promoting release 2026.11.1:"
        " a gate did not pass for exactly this image\n"
        "render: not_run\n"
        "build: not_run\n"
        "smoke: not_run\n"
        "accuracy: not_run\n"
        "rehearse: not_run\n"
        "attest: not_run\n"
        "image: no registry has given it a manifest digest\n"
        "hint: run `nox -s release -- cpu smollm2` until these stages pass"
    )


def test_promote_refuses_what_failed_its_rehearsal_and_takes_what_could_have_none(
    journals: Path,
) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    record = gated_record(digest)

    def ended(status: Status) -> Record:
        rehearse = stage(status, None, image="sha256:c")
        stages = record.stages.model_copy(update={"rehearse": rehearse})
        return sealed(record.model_copy(update={"stages": stages}))

    with pytest.raises(StageRefusedError, match="a gate did not pass") as caught:
        promoted(ended("failed"), registry, registry, journals)
    assert caught.value.details == "rehearse: failed"
    promoted(ended("not_applicable"), registry, registry, journals)


def test_promote_refuses_a_record_that_was_changed_after_the_seal(journals: Path) -> None:
    registry = FakeRegistry()
    known = gated_record(push_image(registry, STAGING, *LAYERS))
    older = stage("passed", known.stages.render and known.stages.render.result, of="others")
    stages = known.stages.model_copy(update={"accuracy": older})
    with pytest.raises(StageRefusedError, match="attest: the record was changed since"):
        promoted(known.model_copy(update={"stages": stages}), registry, registry, journals)
    assert registry.tags(PUBLIC) == ()


def test_promote_refuses_an_image_that_build_did_not_make(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    other = stage("passed", build_result("sha256:other"))
    with pytest.raises(StageRefusedError, match="but build made sha256:other"):
        promoted(gated_record(digest).with_stage("build", other), registry, registry, journals)


def test_promote_refuses_an_image_from_a_base_that_cannot_be_pulled(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    with pytest.raises(StageRefusedError, match="published: false"):
        promoted(gated_record(digest, published=False), registry, registry, journals)


def test_promote_refuses_a_passed_stage_without_a_result(journals: Path) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    hollow = gated_record(digest).with_stage("smoke", stage("passed", None))
    with pytest.raises(StageRefusedError, match="smoke: passed, but its result is missing"):
        promoted(hollow, registry, registry, journals)


def test_promote_says_when_staging_lost_the_image(journals: Path) -> None:
    registry = FakeRegistry()
    with pytest.raises(WorldError, match=r"the manifest flagrelease/staging.* is not there"):
        promoted(gated_record(f"sha256:{'0' * 64}"), registry, registry, journals)


@pytest.mark.parametrize("gate", MEASURED)
def test_promote_refuses_when_a_gate_passed_for_the_image_before_this_one(
    journals: Path, gate: StageName
) -> None:
    registry = FakeRegistry()
    digest = push_image(registry, STAGING, *LAYERS)
    for parts, named in (({"image": "sha256:old"}, "sha256:old"), ({}, "none")):
        older = stage("passed", build_result(digest), **parts)
        known = sealed(gated_record(digest).with_stage(gate, older))
        with pytest.raises(StageRefusedError) as caught:
            promoted(known, registry, registry, journals)
        assert caught.value.details == f"{gate}: passed for image {named}, this one is sha256:c"
