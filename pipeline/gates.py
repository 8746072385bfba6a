"""Whether an image may go out: every gate passed for exactly its digest, or a waiver stands in. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from pipeline.errors import StageRefusedError
from pipeline.record import WAIVABLE, Record, StageName
from pipeline.statements import sealed_sha256

GATES: tuple[StageName, ...] = ("render", "build", "smoke", "accuracy")
MEASURED: tuple[StageName, ...] = ("smoke", "accuracy", "rehearse")


def promotable_digest(record: Record, today: date) -> str:
    """The manifest digest that every gate passed for; refuses with all reasons otherwise."""
    digest = record.image.manifest_digest if record.image else None
    reasons = tuple(_reasons_against(record, digest, today))
    if reasons or digest is None:
        raise StageRefusedError(
            f"promoting release {record.release}: a gate did not pass for exactly this image",
            where=record.cell,
            details="\n".join(reasons),
            hint=f"run `nox -s release -- {record.chip} {record.model}` until these stages pass",
        )
    return digest


def attested_sha256(record: Record) -> str:
    """Of the sealed record, as it is attached to the image; for records that may be promoted."""
    attest = record.stages.attest
    if attest is None or attest.result is None:
        raise LookupError(f"{record.cell} is promoted and was not attested")
    return attest.result.record_sha256


def _reasons_against(record: Record, digest: str | None, today: date) -> Iterator[str]:
    for reason in record.not_passed(GATES):
        yield reason + (_why_not_waived(record) if reason.startswith("accuracy:") else "")
    if record.waiver and not record.waiver.stands_on(today):
        yield f"accuracy: the waiver of {record.waiver.by} ended on {record.waiver.expires}"
    rehearse = record.stages.rehearse
    if rehearse is None or rehearse.status not in ("passed", "not_applicable"):
        yield f"rehearse: {rehearse.status if rehearse else 'not_run'}"
    yield from _not_attested(record, digest)
    if record.image is not None and not record.image.published:
        yield "image: built from a base that cannot be pulled (published: false)"
    if record.image is None or digest is None:
        yield "image: no registry has given it a manifest digest"
        return
    built = _built_digests(record)
    if digest not in built:
        yield f"image: {digest}, but build made {', '.join(built) or 'none'}"
    # A new build leaves the results of the old image in the record until they are measured anew.
    for name in MEASURED:
        stage = record.stages.get(name)
        measured = stage.parts.get("image", "none") if stage else None
        if measured not in (None, digest, record.image.config_digest):
            yield f"{name}: passed for image {measured}, this one is {record.image.config_digest}"


def _not_attested(record: Record, digest: str | None) -> Iterator[str]:
    attest = record.stages.attest
    if attest is None or attest.status != "passed" or attest.result is None:
        yield f"attest: {attest.status if attest else 'not_run'}"
    elif attest.result.digest != digest:
        yield f"attest: passed for image {attest.result.digest}, this one is {digest}"
    elif attest.result.record_sha256 != sealed_sha256(record):
        yield "attest: the record was changed since, so the sealed one and its card do not say the same"


def _why_not_waived(record: Record) -> str:
    waiver = record.about.waiver
    only = f"; the waiver of {waiver.by} stands in for" if waiver else ""
    return f"{only} {' and '.join(WAIVABLE)} alone" if waiver else ""


def _built_digests(record: Record) -> tuple[str, ...]:
    build = record.stages.build
    images = build.result.images if build and build.result else ()
    return tuple(str(image.manifest_digest) for image in images if image.layer == "model")
