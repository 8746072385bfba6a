"""What is stated of an image, and whether it agrees with the image and with itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pipeline.canonical import sha256_bytes
from pipeline.gates import GATES
from pipeline.names import PREFIX
from pipeline.record import Record
from pipeline.release_index import ReleaseIndex
from pipeline.sbom import versions_in
from pipeline.statements import PREDICATES, Kind


class DisagreementError(ValueError):
    """Two things that should say the same do not."""


class Subject(BaseModel):
    model_config = ConfigDict(frozen=True)
    digest: Mapping[str, str]


class Statement(BaseModel):
    """An in-toto statement as somebody attached it."""

    model_config = ConfigDict(frozen=True)
    subject: tuple[Subject, ...]
    predicate_type: str = Field(alias="predicateType")
    predicate: Mapping[str, Any]


def read_statement(kind: Kind, payload: bytes, digest: str) -> Statement:
    """Raises ValueError unless it is a statement of this kind about this image alone."""
    found = Statement.model_validate_json(payload)
    if found.predicate_type != PREDICATES[kind]:
        raise DisagreementError(f"it is announced as {kind} and states {found.predicate_type}")
    subjects = [f"sha256:{one.digest.get('sha256')}" for one in found.subject]
    if subjects != [digest]:
        raise DisagreementError(f"it is of {', '.join(subjects)}, not of {digest}")
    return found


def record_agrees(record: Record, digest: str, config_digest: str) -> str:
    """The record is of this image, and every gate passed for it."""
    identity, accuracy = record.image, record.stages.accuracy
    _must_be("manifest", identity and identity.manifest_digest, digest)
    _must_be("config", identity and identity.config_digest, config_digest)
    if not_passed := list(record.not_passed(GATES)):
        raise DisagreementError(f"a gate did not pass: {', '.join(not_passed)}")
    verdict = accuracy.result.verdict if accuracy and accuracy.result else None
    said = [verdict.sentence] if verdict else []
    said += [record.waiver.sentence] if record.waiver else []
    return f"release {record.release}: {'; '.join(said)}"


def bill_agrees(bill: Mapping[str, Any], record: Record, digest: str) -> str:
    """The versions that the smoke test read in the running container are in the bill."""
    _must_be("image", _at(bill, "metadata", "component", "version"), digest)
    smoke = record.stages.smoke
    seen = smoke.result.facts.packages if smoke and smoke.result and smoke.result.facts else {}
    named = versions_in(bill)
    missing = [f"{name} {version}" for name, version in seen.items() if version not in named[name]]
    if missing:
        raise DisagreementError(f"the running image has {', '.join(missing[:10])}, the SBOM not")
    packages = len(bill.get("components", ()))
    return f"{packages} packages, with all {len(seen)} that the smoke test saw"


def origin_agrees(origin: Mapping[str, Any], record: Record, labels: Mapping[str, str]) -> str:
    """The provenance, the record and the image's own labels say the same of where it comes from."""
    inputs = _at(origin, "buildDefinition", "resolvedDependencies") or ()
    base = next((one.get("digest") for one in inputs if one.get("name") == "base image"), None)
    source = next((str(one["uri"]) for one in inputs if "uri" in one), "")
    stated_base = str(record.image.base if record.image else "").removeprefix("sha256:")
    revision = labels.get(f"{PREFIX}.revision")
    _must_be("cell", _at(origin, "buildDefinition", "externalParameters", "cell"), record.cell)
    _must_be("base image", base, {"sha256": stated_base})
    _must_be("revision", source.rpartition("@")[2], revision)
    build = _at(origin, "runDetails", "metadata", "invocationId")
    _must_be("build key", build, labels.get("io.flagos.release.key"))
    level = _at(origin, "buildDefinition", "internalParameters", "claimedBuildLevel", "level")
    return f"built from {revision}; SLSA build level {level} claimed"


def index_agrees(index: ReleaseIndex, record: Record, content: bytes, digest: str) -> str:
    """The release index names this image and exactly these bytes of its record."""
    named = next((cell for cell in index.cells if cell.cell == record.cell), None)
    if named is None:
        raise DisagreementError(f"the index of {index.release} does not name {record.cell}")
    _must_be("image in the index", named.digest, digest)
    _must_be("record in the index", named.record_sha256, sha256_bytes(content))
    return f"the index of {index.release} names this image and this record"


def not_of_another(index: ReleaseIndex, repository: str, digest: str) -> None:
    """Raises DisagreementError where the release has another image in this repository: an image under a wrong name."""
    for cell in index.cells:
        if cell.repository == repository and cell.digest != digest:
            raise DisagreementError(
                f"the index of {index.release} has {cell.cell} in this repository, as {cell.digest}"
            )


def cards_agree(files: Mapping[str, bytes], record: Record) -> str:
    """Every one of these files is a file of the card that the record was sealed with."""
    stage = record.stages.card
    known = {one.sha256 for one in stage.result.files} if stage and stage.result else set()
    others = [name for name, data in files.items() if sha256_bytes(data) not in known]
    if others:
        raise DisagreementError(f"{', '.join(others)}: not as the record was sealed with")
    return f"{', '.join(sorted(files))}: byte for byte as the record was sealed with"


def _at(content: Any, *names: str) -> Any:
    """A value inside of what somebody else wrote; None where it is not."""
    for name in names:
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _must_be(what: str, stated: object, is_: object) -> None:
    if stated != is_:
        raise DisagreementError(f"{what}: stated {stated}, it is {is_}")
