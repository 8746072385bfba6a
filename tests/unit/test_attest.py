"""What is said of an image, who signed it, and what verify says when things disagree."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from pipeline import verifying
from pipeline.canonical import canonical, sha256_file
from pipeline.errors import StageRefusedError, UsageError, WorldError
from pipeline.fetching import Source, fetch_where_none
from pipeline.record import Record, ReleaseKey, record_bytes
from pipeline.release_index import INDEX_TYPE, IndexedCell, ReleaseIndex, Tombstone, document
from pipeline.reporter import Reporter
from pipeline.republishing import publish_changed
from pipeline.rewriting import cards_of
from pipeline.sbom import Inventory, Package, sbom
from pipeline.signatures import (
    NotSignedError,
    PublicKey,
    SigningKey,
    opened_envelope,
    sealed_envelope,
)
from pipeline.smoke_result import Check
from pipeline.stages.attest import Subject, attest, place_of
from pipeline.stages.card import card
from pipeline.statements import PREDICATES, sealed_sha256, statement
from pipeline.verifying import verify_image
from pipeline.withdrawals import ask_for_withdrawals
from pipeline.world.attachments import BUNDLE_TYPE, PREDICATE, attach, attached
from pipeline.world.hub_folder import FolderHub
from pipeline.world.journal import Burial
from pipeline.world.oci import OCI_MANIFEST, TOMBSTONE_TYPE, Manifest, digest_of
from pipeline.world.registry_artifacts import artifact, put_artifact
from pipeline.world.registry_copy import Copy, Route, copy_images
from pipeline.world.signing_key import KEY, PASSWORD, signing_key
from pipeline.world.tag_moves import bury
from tests.attested import (
    REPOSITORY,
    REVISION,
    Pair,
    Released,
    attest_record,
    inventory_of,
    new_pair,
    put_index,
    release_image,
    templates,
)
from tests.fakes_registry import FakeRegistry
from tests.projects import Changes, copied_project, one_cell
from tests.record_parts import passed, sha256

CHECKS = [
    *("image", "signature", "SBOM", "provenance", "record", "tags of cosign 2"),
    *("record of the image", "SBOM of the image", "provenance of the image"),
    *("release index", "card"),
]


@pytest.fixture(scope="module")
def pair() -> Pair:
    return new_pair()


@pytest.fixture
def released(pair: Pair) -> Released:
    return release_image(FakeRegistry(), pair)


def predicate(released: Released, kind: str) -> dict[str, object]:
    wanted = [uri for name, uri in PREDICATES.items() if name == kind]
    found = [one for one in attached(released.place) if one.predicate_type in wanted]
    key = released.pair.verifying if released.pair else None
    content: dict[str, object] = json.loads(found[0].statement(key) or b"")["predicate"]
    return content


def test_a_signed_release_agrees_with_itself(released: Released) -> None:
    checks = released.verified()
    assert (list(checks), released.failed()) == (CHECKS, {})
    assert (
        checks["provenance of the image"].seen
        == f"built from {REVISION}; SLSA build level 1 claimed"
    )


def test_an_unsigned_release_agrees_with_itself_and_says_that_nobody_signed_it() -> None:
    released = release_image(FakeRegistry(), None)
    assert released.failed() == {}
    assert released.verified()["signature"].seen.startswith(
        "none asked for, by --unsigned; 0 signed"
    )
    assert (released.result.signed_by, released.result.signature_tags) == (None, ())


def test_another_key_is_refused_for_all_that_is_signed(released: Released) -> None:
    checks = released.verified(new_pair().verifying)
    assert checks["signature"].seen == "its signature is not of this key, or it was changed"
    for name in ("SBOM", "provenance", "record"):
        assert checks[name].seen == "none that this key signed is attached to the image"
    assert {name for name, check in checks.items() if check.passed} == {"image"}


@pytest.mark.parametrize(
    ("is_unsigned", "hint"),
    [
        (False, r"hint: is \S+/other\.pub the key of who released it\?"),
        (True, "hint: if it is signed, give --key FILE"),
    ],
)
def test_where_nothing_is_vouched_for_the_key_is_asked_for_first(
    released: Released,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_unsigned: bool,
    hint: str,
) -> None:
    monkeypatch.setattr(verifying, "Registry", lambda _: released.place.registry)
    (tmp_path / "other.pub").write_text(new_pair().public)
    with pytest.raises(StageRefusedError, match=hint):
        verify_image(
            released.image,
            key=None if is_unsigned else tmp_path / "other.pub",
            unsigned=is_unsigned,
            cards=(),
            templates=templates(),
            report=Reporter(Console(file=io.StringIO())),
        )


def test_a_bundle_that_names_our_key_and_is_not_signed_by_it_is_named(
    released: Released, pair: Pair
) -> None:
    """As somebody would make it who has the public key alone."""
    other = release_image(FakeRegistry(), new_pair(), b"another layer")
    theirs = next(one for one in attached(other.place) if one.predicate_type == PREDICATES["SBOM"])
    bundle = json.loads(other.place.registry.blob(REPOSITORY, theirs.content))
    bundle["verificationMaterial"]["publicKey"]["hint"] = pair.verifying.hint
    content, place = canonical(bundle), released.place
    annotations = {PREDICATE: PREDICATES["SBOM"]}
    manifest = artifact(BUNDLE_TYPE, content, place.image, annotations)
    put_artifact(place.registry, REPOSITORY, manifest, content)
    assert released.failed()["SBOM"] == "its signature is not of this key, or it was changed"


def test_of_the_statements_of_many_releases_one_is_shown(released: Released, pair: Pair) -> None:
    """An image that did not change has one of each release, and their hashes filled the terminal."""
    for release in ("2026.11.30.1", "2026.11.30.2"):
        record = released.record.model_copy(update={"release": release})
        result = attest_record(released.place.registry, record, released.place.image.digest, pair)
    newest = next(one.sha256 for one in result.attestations if one.kind == "record")
    assert released.verified()["record"].seen == f"signed: statement {newest}, and 2 more"


def test_what_was_signed_keyless_stands_beside_ours(released: Released) -> None:
    """As cosign 3 attaches it: the bundle names a certificate instead of a key."""
    place = released.place
    theirs = next(one for one in attached(place) if one.predicate_type == PREDICATES["SBOM"])
    bundle = json.loads(place.registry.blob(REPOSITORY, theirs.content))
    bundle["verificationMaterial"] = {"certificate": {"rawBytes": "MIIB"}, "tlogEntries": []}
    content = canonical(bundle)
    manifest = artifact(BUNDLE_TYPE, content, place.image, {PREDICATE: PREDICATES["SBOM"]})
    put_artifact(place.registry, REPOSITORY, manifest, content)
    assert released.failed() == {}


def test_what_our_key_says_besides_of_other_kinds_is_no_disagreement(
    released: Released, pair: Pair
) -> None:
    """As `cosign attest --type vuln` with the release key, after a scan."""
    scan = "https://cosign.sigstore.dev/attestation/vuln/v1"
    digest = released.place.image.digest
    made = json.loads(statement("SBOM", digest, {}, "n"))
    attach(released.place, canonical({**made, "predicateType": scan}), scan, pair.signing)
    assert released.failed() == {}


def test_a_document_without_content_states_nothing(released: Released) -> None:
    place = released.place
    body = json.loads(artifact(BUNDLE_TYPE, b"", place.image, {PREDICATE: "x"}).body)
    data = canonical({**body, "layers": []})
    manifest = Manifest(digest=digest_of(data), media_type=OCI_MANIFEST, body=data)
    put_artifact(place.registry, REPOSITORY, manifest, b"")
    assert released.failed() == {}


def test_what_another_key_signed_stands_beside_ours(released: Released) -> None:
    """Keys change, and targets share their staging."""
    twice = release_image(released.place.registry, new_pair())
    put_index(
        released.place.registry,
        released.record,
        released.place.image.digest,
        released.result.record_sha256,
    )
    assert twice.place.image.digest == released.place.image.digest
    assert released.failed() == {}
    assert len(attached(released.place)) == 6
    assert set(twice.failed()) == {"release index"}


def test_a_signed_release_is_not_taken_for_an_unsigned_one(released: Released) -> None:
    without = Released(
        place=released.place, record=released.record, result=released.result, pair=None
    )
    failed = without.failed()
    assert failed["record"] == "none that needs no key is attached to the image"
    assert "signature" not in failed


def test_an_unsigned_release_does_not_pass_under_a_key(pair: Pair) -> None:
    checks = release_image(FakeRegistry(), None).verified(pair.verifying)
    assert checks["signature"].seen == "the image has no signature"
    assert checks["record"].seen == "none that this key signed is attached to the image"


def test_a_tag_of_a_release_whose_record_is_not_there_is_named(released: Released) -> None:
    place = released.place
    later = Released(
        place=place,
        record=released.record.model_copy(update={"release": "2026.11.30.1"}),
        result=released.result,
        pair=released.pair,
    )
    place.registry.put_manifest(
        REPOSITORY, "2026.11.30.1", place.image.body, place.image.media_type
    )
    seen = later.failed()["record of the image"]
    assert seen == "no record of release 2026.11.30.1 is attached to the image"


def test_a_release_that_is_not_there_is_answered_with_those_that_are(released: Released) -> None:
    registry = released.place.registry
    with pytest.raises(WorldError) as told:
        place_of(registry, REPOSITORY, "2025.01.01.1")
    assert told.value.message == "there is no such image"
    assert told.value.hint == f"the newest releases there are {released.record.release}"
    with pytest.raises(WorldError, match="look for typing mistakes"):
        place_of(registry, "toys/nothing", "latest")


def test_a_statement_of_another_image_is_named(released: Released, pair: Pair) -> None:
    other = release_image(FakeRegistry(), pair, b"another layer")
    theirs = next(one for one in attached(other.place) if one.predicate_type == PREDICATES["SBOM"])
    about_theirs = theirs.statement(pair.verifying)
    assert about_theirs is not None
    attach(released.place, about_theirs, PREDICATES["SBOM"], pair.signing)
    seen = released.failed()["SBOM"]
    assert seen == f"it is of {other.place.image.digest}, not of {released.place.image.digest}"


def test_an_index_that_names_another_record_is_named(released: Released) -> None:
    digest = released.place.image.digest
    put_index(released.place.registry, released.record, digest, sha256("another record"))
    expected = f"record in the index: stated {sha256('another record')}, it is {released.result.record_sha256}"
    assert released.failed() == {"release index": expected}


def test_a_release_without_an_index_was_not_promoted(released: Released) -> None:
    registry = released.place.registry
    index = registry.head("toys/releases", f"rel-{released.record.release}")
    assert index is not None
    assert registry.delete("toys/releases", index)
    assert released.failed() == {
        "release index": f"release {released.record.release} has none: it was not promoted"
    }


def test_a_withdrawn_image_fails_with_the_reason_and_its_card_says_it(
    released: Released, tmp_path: Path
) -> None:
    place, digest = released.place, released.place.image.digest
    stone = Tombstone(
        event="yanked",
        release=released.record.release,
        cell=released.record.cell,
        digest=digest,
        by="somebody",
        reason="it answers in riddles",
        time="2026-11-25T00:00:00+00:00",
        replaced_by=None,
    )
    manifest = artifact(TOMBSTONE_TYPE, document(stone), place.image)
    put_artifact(place.registry, REPOSITORY, manifest, document(stone))
    assert "it answers in riddles" in released.failed()["release index"]
    path = tmp_path / "README.md"
    path.write_bytes(card(released.record, templates(), stone)["card.en.md"])
    seen = released.verified(cards=(path,))["card"]
    assert (seen.passed, seen.seen) == (
        True,
        "README.md: as the record gives it, with who withdrew it",
    )


def verified_elsewhere(released: Released, others: Sequence[IndexedCell]) -> Check:
    """The image and all that refers to it under another name beside its own; who pushed it has no key."""
    registry, place = released.place.registry, released.place
    own = IndexedCell(
        cell=released.record.cell,
        repository=REPOSITORY,
        digest=place.image.digest,
        record_sha256=released.result.record_sha256,
    )
    index = ReleaseIndex(release=released.record.release, cells=(own, *others), moves=())
    stored = artifact(INDEX_TYPE, document(index))
    put_artifact(
        registry, "toys/releases", stored, document(index), f"rel-{released.record.release}"
    )
    route = Route(
        source=registry,
        target=registry,
        source_repository=REPOSITORY,
        target_repository="toys/flagrelease_cpu_other",
    )
    copy_images(registry, [Copy(route=route, digest=place.image.digest)])
    elsewhere = replace(
        released, place=place_of(registry, route.target_repository, place.image.digest)
    )
    return elsewhere.verified(by_digest=True)["release index"]


def test_a_signed_image_under_the_name_of_another_cell_is_named(released: Released) -> None:
    other = IndexedCell(
        cell="cpu/other",
        repository="toys/flagrelease_cpu_other",
        digest=f"sha256:{sha256('other')}",
        record_sha256=sha256("their record"),
    )
    seen = verified_elsewhere(released, [other])
    assert (seen.passed, seen.seen) == (
        False,
        f"the index of {released.record.release} has cpu/other in this repository, as {other.digest}",
    )


def test_a_copy_under_a_name_that_no_release_has_says_where_it_is_released(
    released: Released,
) -> None:
    """As a mirror has it, and the long name."""
    seen = verified_elsewhere(released, [])
    assert (seen.passed, seen.seen) == (
        True,
        f"none here: the image is released as {released.place.registry.host}/{REPOSITORY}",
    )


def test_a_copy_of_a_yanked_image_beside_it_is_withdrawn_too(released: Released) -> None:
    """The tombstone is at the image under its own name; the long name was copied before."""
    verified_elsewhere(released, [])
    yank(released)
    registry, digest = released.place.registry, released.place.image.digest
    copied = replace(released, place=place_of(registry, "toys/flagrelease_cpu_other", digest))
    seen = copied.verified(by_digest=True)["release index"]
    assert not seen.passed
    assert "it answers in riddles" in seen.seen


OLD, NEW = "2026.11.30.1", "2026.11.30.2"


def attested_again(released: Released, release: str, *, is_promoted: bool) -> None:
    """The same image, with the record of another release."""
    registry, digest = released.place.registry, released.place.image.digest
    record = released.record.model_copy(update={"release": release})
    sealed = attest_record(registry, record, digest, released.pair).record_sha256
    if is_promoted:
        put_index(registry, record, digest, sealed)


def withdraw(released: Released, event: Literal["rolled_back", "yanked"], release: str) -> None:
    stone = Tombstone(
        event=event,
        release=release,
        cell=released.record.cell,
        digest=released.place.image.digest,
        by="somebody",
        reason="it answers in riddles",
        time="2026-11-30T00:00:00+00:00",
        replaced_by=None,
    )
    bury(released.place.registry, Burial(repository=REPOSITORY, tombstone=stone))


def roll_back(released: Released, release: str) -> None:
    withdraw(released, "rolled_back", release)


@pytest.mark.parametrize(
    ("promoted", "rolled_back", "taken"),
    [
        ((OLD, NEW), (), NEW),
        ((OLD, NEW), (NEW,), OLD),
        ((OLD, NEW), (OLD, NEW), None),  # the first one of all
        ((OLD,), (), OLD),  # that of NEW was killed before its commit: its record is there, no more
        ((OLD,), (OLD,), None),
        ((), (), None),
    ],
)
def test_an_image_by_its_digest_is_of_the_newest_release_that_stands(
    released: Released,
    promoted: tuple[str, ...],
    rolled_back: tuple[str, ...],
    taken: str | None,
) -> None:
    for release in (OLD, NEW):
        attested_again(released, release, is_promoted=release in promoted)
    for release in rolled_back:
        roll_back(released, release)
    seen = released.verified(by_digest=True)["release index"]
    assert seen.passed
    assert (taken or released.record.release) in seen.seen


def test_an_image_whose_releases_were_all_rolled_back_fails_with_the_newest(
    released: Released,
) -> None:
    attested_again(released, NEW, is_promoted=True)
    for release in (released.record.release, NEW):
        roll_back(released, release)
    seen = released.verified(by_digest=True)["release index"]
    assert not seen.passed
    assert seen.seen.startswith(f"release {NEW} was rolled back on 2026-11-30")


def test_an_image_that_was_never_promoted_is_of_its_newest_record_and_says_so(
    released: Released,
) -> None:
    attested_again(released, NEW, is_promoted=False)
    index = released.place.registry.head("toys/releases", f"rel-{released.record.release}")
    assert released.place.registry.delete("toys/releases", str(index))
    seen = released.verified(by_digest=True)["release index"]
    assert (seen.passed, seen.seen) == (False, f"release {NEW} has none: it was not promoted")


def test_an_sbom_without_a_package_that_ran_is_named(pair: Pair) -> None:
    released = release_image(FakeRegistry(), pair)
    inventory, digest = inventory_of(released.record), released.place.image.digest
    *others, gone = inventory.packages
    fewer = inventory.model_copy(update={"packages": tuple(others)})
    bill = sbom(fewer, "n", digest, "2026-11-24T09:00:00+00:00")
    attach(released.place, statement("SBOM", digest, bill, "n"), PREDICATES["SBOM"], pair.signing)
    seen = released.failed()["SBOM of the image"]
    assert seen == f"the running image has {gone.name} {gone.version}, the SBOM not"


def test_a_published_card_is_compared_by_its_bytes(released: Released, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(card(released.record, templates())["card.en.md"])
    assert released.verified(cards=(path,))["card"].passed
    path.write_bytes(path.read_bytes() + b" ")
    check = released.verified(cards=(path,))["card"]
    assert (check.passed, check.seen) == (False, "README.md: not as the record was sealed with")


def test_attesting_again_changes_nothing(released: Released) -> None:
    assert released.record.stages.build is not None
    assert released.record.stages.build.result is not None
    registry = released.place.registry
    assert isinstance(registry, FakeRegistry)
    assert released.pair is not None
    before = (registry.tags(REPOSITORY), len(attached(released.place)))
    again = attest(
        released.record,
        released.record.stages.build.result,
        Subject(
            registry=registry,
            repository=REPOSITORY,
            digest=released.place.image.digest,
            name=f"{registry.host}/{REPOSITORY}",
        ),
        lambda: inventory_of(released.record),
        released.pair.signing,
    )
    assert again.attestations == released.result.attestations
    assert (registry.tags(REPOSITORY), len(attached(released.place))) == before


def test_the_sealed_record_does_not_hold_what_comes_after(released: Released) -> None:
    later = released.record.with_stage("attest", passed(released.result))
    assert sealed_sha256(later) == sealed_sha256(released.record) == released.result.record_sha256
    stated = predicate(released, "record")
    assert canonical(stated["record"]) + b"\n" == record_bytes(released.record)
    assert stated["stages"]["accuracy"] == "passed"  # type: ignore[index]


def test_provenance_claims_level_one_and_says_why(released: Released) -> None:
    definition = predicate(released, "provenance")["buildDefinition"]
    assert isinstance(definition, dict)
    claim = definition["internalParameters"]["claimedBuildLevel"]
    assert claim["level"] == 1
    assert "level 2 asks for a hosted platform" in claim["why"]
    source, *_ = definition["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": REVISION}
    named = {one.get("name"): one["digest"] for one in definition["resolvedDependencies"]}
    assert named["images/cpu/Dockerfile"] == {"sha256": sha256("Dockerfile")}


def test_the_sbom_keeps_the_schema_and_names_packages_by_their_url(released: Released) -> None:
    from cyclonedx.schema import SchemaVersion  # here, for it takes a second to load
    from cyclonedx.validation.json import JsonStrictValidator

    bill = predicate(released, "SBOM")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill)) is None
    components = bill["components"]
    assert isinstance(components, list)
    assert components[0]["purl"] == (
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"
    )
    unread = {"name": "io.flagos.release.unread", "value": "conda"}
    assert unread in bill["metadata"]["properties"]  # type: ignore[index]


def test_a_package_installed_twice_is_one_component_with_two_places() -> None:
    twice = [Package(kind="pypi", name="wheel", version="1", place=place) for place in ("/a", "/b")]
    inventory = Inventory(system="debian", system_version="12", packages=tuple(twice), unread=())
    (component,) = sbom(inventory, "n", f"sha256:{'0' * 64}", "2026-11-24T09:00:00+00:00")[
        "components"
    ]
    places = [one["location"] for one in component["evidence"]["occurrences"]]
    assert places == ["/a", "/b"]


def test_an_envelope_whose_payload_changed_does_not_open(pair: Pair) -> None:
    envelope = json.loads(sealed_envelope(b"{}", pair.signing))
    assert opened_envelope(canonical(envelope), pair.verifying) == b"{}"
    envelope["payload"] = base64.b64encode(b"[]").decode()
    with pytest.raises(NotSignedError):
        opened_envelope(canonical(envelope), pair.verifying)


def test_a_signature_is_the_same_each_time(pair: Pair) -> None:
    assert pair.signing.sign(b"x") == pair.signing.sign(b"x")


def test_a_private_key_needs_its_password_and_no_error_shows_either() -> None:
    locked = new_pair("open sesame").private
    assert SigningKey.read(locked, "open sesame", "k").public
    for password in (None, "open says me"):
        with pytest.raises(UsageError) as caught:
            SigningKey.read(locked, password, "signing.key")
        text = str(caught.value)
        assert text.startswith("signing.key: this is no P-256 private key in PEM, or the password")
        assert "says me" not in text
        assert "PRIVATE" not in text


def test_the_signing_key_is_the_private_half_of_the_targets_key(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = ReleaseKey(path="k.pub", pem=pair.public, fingerprint=pair.verifying.fingerprint)
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.delenv(PASSWORD, raising=False)
    with pytest.raises(UsageError, match=f"{KEY} is not set"):
        signing_key(key)
    monkeypatch.setenv(KEY, pair.private.decode())
    assert signing_key(key).public == pair.verifying
    (tmp_path / "k").write_bytes(new_pair().private)
    monkeypatch.setenv(KEY, str(tmp_path / "k"))
    with pytest.raises(UsageError, match="the private half of another key"):
        signing_key(key)


def test_what_is_no_public_key_is_refused() -> None:
    with pytest.raises(UsageError, match="no P-256 public key"):
        PublicKey.read("-----BEGIN NOTHING-----", "k.pub")


def fresh_checkout(folder: Path, registry: FakeRegistry, pair: Pair | None) -> Source:
    """A checkout that never built anything, with the target's public key in it."""
    target: Changes = {("targets", "local", "registry"): "registry.test/toys"}
    if pair is not None:
        target = {**target, ("targets", "local", "public_key"): "toys.pub"}
        (folder / "toys.pub").write_text(pair.public)
    project = copied_project(folder, target)
    return Source(project=project, target=project.target("local"), registry=registry)


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_checkout_that_never_built_makes_the_same_card_from_the_registry(
    tmp_path: Path, pair: Pair, *, is_signed: bool
) -> None:
    registry, said = FakeRegistry("registry.test"), list[str]()
    released = release_image(registry, pair if is_signed else None)
    source = fresh_checkout(tmp_path, registry, pair if is_signed else None)
    cell = one_cell(source.project, "cpu", "smollm2")
    fetch_where_none(source, cell, None, said.append)
    (found,) = cards_of(source.project, [cell], released.record.release)
    found.write()
    assert (found.folder / "record.json").read_bytes() == record_bytes(released.record)
    sealed = released.record.stages.card
    assert sealed is not None
    assert sealed.result is not None
    made = {path.name: sha256_file(path) for path in found.folder.iterdir()}
    assert {one.path: one.sha256 for one in sealed.result.files}.items() <= made.items()
    by = f"signed by {pair.verifying.fingerprint}" if is_signed else "signed by nobody"
    assert said == [
        f"out/{released.record.release}/cpu/smollm2/record.json: fetched from {released.image}, {by}"
    ]


def yank(released: Released) -> None:
    withdraw(released, "yanked", released.record.release)


def test_a_checkout_that_never_built_says_that_the_image_was_yanked(tmp_path: Path) -> None:
    registry = FakeRegistry("registry.test")
    released = release_image(registry, None)
    yank(released)
    source = fresh_checkout(tmp_path, registry, None)
    cell = one_cell(source.project, "cpu", "smollm2")
    fetch_where_none(source, cell, None, list[str]().append)
    ask_for_withdrawals(source.project, [cell], None, registry, list[str]().append)
    (found,) = cards_of(source.project, [cell], None)
    assert "it answers in riddles" in found.files["card.en.md"].decode()


def test_a_checkout_that_never_built_publishes_what_the_index_says_was_promoted(
    tmp_path: Path,
) -> None:
    """The fetched record was sealed before its promotion; who yanks elsewhere is told to publish the banner."""
    registry, said = FakeRegistry("registry.test"), list[str]()
    released = release_image(registry, None)
    yank(released)
    source = fresh_checkout(tmp_path, registry, None)
    cell = one_cell(source.project, "cpu", "smollm2")
    fetch_where_none(source, cell, None, said.append)
    ask_for_withdrawals(source.project, [cell], None, registry, said.append)
    cards, hub = cards_of(source.project, [cell], None), FolderHub(tmp_path / "hub")
    publish_changed(source, cards, [hub], said.append)
    (card_there,) = (tmp_path / "hub").rglob("README.md")
    assert "it answers in riddles" in card_there.read_text("utf-8")
    (kept,) = source.project.store.of_cell("cpu", "smollm2")
    assert kept == released.record.sealed


def test_a_record_that_no_index_names_was_not_promoted(tmp_path: Path) -> None:
    registry, said = FakeRegistry("registry.test"), list[str]()
    release_image(registry, None)
    source = fresh_checkout(tmp_path, registry, None)
    cell = one_cell(source.project, "cpu", "smollm2")
    fetch_where_none(source, cell, None, said.append)
    (kept,) = source.project.store.of_cell("cpu", "smollm2")
    put_index(registry, kept, "sha256:" + "0" * 64, "1" * 64)
    publish_changed(source, cards_of(source.project, [cell], None), [], said.append)
    assert said[-1] == f"{kept.cell} {kept.release}: not promoted, so not published"


def test_a_checkout_that_never_built_takes_the_newest_release_that_nobody_withdrew(
    tmp_path: Path,
) -> None:
    """As one does that has the records of all."""
    registry = FakeRegistry("registry.test")
    standing = release_image(registry, None)
    newer = release_image(registry, None, b"another layer")
    record = newer.record.model_copy(update={"release": NEW})
    attest_record(registry, record, newer.place.image.digest, None)
    registry.put_manifest(REPOSITORY, NEW, newer.place.image.body, OCI_MANIFEST)
    release_image(registry, None)  # its version tag again, which the other image took
    yank(newer)
    source = fresh_checkout(tmp_path, registry, None)
    cell = one_cell(source.project, "cpu", "smollm2")
    fetch_where_none(source, cell, None, list[str]().append)
    assert source.project.store.releases("cpu", "smollm2") == (standing.record.release,)


def of_another_pipeline(record: Record) -> Record:
    """A record of a later release whose file this pipeline cannot read."""
    return record.model_copy(update={"release": "2027.1.1.1", "record_schema": 2})


@pytest.mark.parametrize("promoted", [0, 1])
def test_of_several_records_of_one_release_the_one_in_the_index_is_fetched(
    tmp_path: Path, *, promoted: int
) -> None:
    """Two runs under one name, of one image: both attached their record, one was promoted."""
    registry = FakeRegistry("registry.test")
    first = release_image(registry, None)
    about = first.record.about.model_copy(update={"title": "Second run"})
    records = (first.record, first.record.model_copy(update={"about": about}))
    digest = first.place.image.digest
    sealed = [attest_record(registry, record, digest, None).record_sha256 for record in records]
    attest_record(registry, of_another_pipeline(first.record), digest, None)
    put_index(registry, records[promoted], digest, sealed[promoted])
    source = fresh_checkout(tmp_path, registry, None)
    cell = one_cell(source.project, "cpu", "smollm2")
    fetch_where_none(source, cell, first.record.release, list[str]().append)
    (found,) = source.project.store.of_cell("cpu", "smollm2")
    assert found.about == records[promoted].about


def test_a_record_that_the_targets_key_did_not_sign_is_not_fetched(
    tmp_path: Path, pair: Pair
) -> None:
    registry = FakeRegistry("registry.test")
    release_image(registry, new_pair())
    source = fresh_checkout(tmp_path, registry, pair)
    cell = one_cell(source.project, "cpu", "smollm2")
    with pytest.raises(StageRefusedError, match=r"signed by toys\.pub is attached"):
        fetch_where_none(source, cell, None, list[str]().append)
    assert source.project.store.releases("cpu", "smollm2") == ()


def test_a_registry_without_the_release_is_told_and_a_known_record_is_not_fetched(
    tmp_path: Path,
) -> None:
    registry, said = FakeRegistry("registry.test"), list[str]()
    source = fresh_checkout(tmp_path, registry, None)
    cell = one_cell(source.project, "cpu", "smollm2")
    fetch_where_none(source, cell, "2026.11.1.1", said.append)
    assert said == ["registry.test/toys has no release 2026.11.1.1 of cpu/smollm2"]
    with pytest.raises(StageRefusedError, match=r"cpu/smollm2 in release 2026\.11\.1\.1 can"):
        cards_of(source.project, [cell], "2026.11.1.1")
    released = release_image(registry, None)
    source.project.store.write(released.record)
    fetch_where_none(source, cell, None, said.append)
    assert len(said) == 1
