"""Whether an image may go out: every gate passed for exactly its digest, or a waiver stands in. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from pipeline.errors import StageRefusedError
from pipeline.record import Record, StageName
from pipeline.waiver import WAIVABLE, Waiver

GATES: tuple[StageName, ...] = ("render", "build", "smoke", "accuracy")
MEASURED: tuple[StageName, ...] = ("smoke", "accuracy", "rehearse")


def promotable_digest(record: Record, waiver: Waiver | None, today: date) -> str:
    """The manifest digest that every gate passed for; refuses with all reasons otherwise."""
    digest = record.image.manifest_digest if record.image else None
    reasons = tuple(_reasons_against(record, digest, waiver, today))
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


def is_waived(record: Record, waiver: Waiver | None, today: date) -> bool:
    """Whether accuracy was not decided, and somebody takes it upon himself."""
    accuracy = record.stages.accuracy
    status = accuracy.status if accuracy else "not_run"
    return waiver is not None and waiver.stands_on(today) and status in WAIVABLE


def _reasons_against(
    record: Record, digest: str | None, waiver: Waiver | None, today: date
) -> Iterator[str]:
    waived = is_waived(record, waiver, today)
    for reason in record.not_passed(GATES):
        of_accuracy = reason.startswith("accuracy:")
        if of_accuracy and waived:
            continue
        yield reason + (_why_not_waived(waiver, today) if of_accuracy else "")
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


def _why_not_waived(waiver: Waiver | None, today: date) -> str:
    if waiver is None:
        return ""
    if not waiver.stands_on(today):
        return f"; the waiver of {waiver.by} ended on {waiver.expires}"
    return f"; the waiver of {waiver.by} stands in for {' and '.join(WAIVABLE)} alone"


def _built_digests(record: Record) -> tuple[str, ...]:
    build = record.stages.build
    images = build.result.images if build and build.result else ()
    return tuple(str(image.manifest_digest) for image in images if image.layer == "model")
