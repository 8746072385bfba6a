"""verify: an image, its attestations, its record and its card against each other. Needs the public key, no matrix."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from pipeline.agreement import (
    DisagreementError,
    Statement,
    bill_agrees,
    cards_agree,
    index_agrees,
    not_of_another,
    origin_agrees,
    read_statement,
    record_agrees,
)
from pipeline.canonical import sha256_bytes
from pipeline.errors import PipelineError
from pipeline.naming import CALVER
from pipeline.record import Record
from pipeline.release_index import Tombstone
from pipeline.signatures import PublicKey
from pipeline.smoke_result import Check
from pipeline.statements import PREDICATES, Kind
from pipeline.world.attachments import Place, attached, check_signature, tagged_statements
from pipeline.world.indexes import withdrawn_from
from pipeline.world.sealed import (
    Sealed,
    newest_release,
    read_index,
    record_of_release,
    sealed_records,
)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Asked:
    place: Place
    tag: str | None
    key: PublicKey | None  # None: what nobody signed is taken as it is
    labels: Callable[[], Mapping[str, str]]  # of the image
    made: Callable[
        [Record, Tombstone | None], Mapping[str, bytes]
    ]  # the card, as this checkout writes it
    cards: Sequence[Path]  # published ones, to be compared instead


def verify(asked: Asked) -> tuple[Check, ...]:
    """Every check with what it saw; a failed one names what is wrong. What could not be looked at failed."""
    looks, found = Looks(), dict[Kind, "tuple[Payload, ...]"]()
    looks.at("image", lambda: _whole(asked.place))
    looks.at("signature", lambda: _signature(asked))
    for kind in PREDICATES:
        found[kind] = looks.at(kind, partial(_stated, asked, kind)) or ()
    looks.at("tags of cosign 2", lambda: _tagged(asked, found))
    sealed = looks.at("record of the image", lambda: _record(asked, found["record"]))
    looks.at("SBOM of the image", lambda: _bill(asked, found["SBOM"], sealed))
    looks.at("provenance of the image", lambda: _origin(asked, found["provenance"], sealed))
    looks.at("release index", lambda: _index(asked, sealed))
    looks.at("card", lambda: _card(asked, sealed))
    return tuple(looks.checks)


@dataclass(frozen=True, kw_only=True)
class Payload:
    """A statement that is signed as it should be, of the right kind and of this image."""

    content: bytes
    statement: Statement


def stated(place: Place, kind: Kind, key: PublicKey | None) -> tuple[Payload, ...]:
    """All statements of a kind that this key signed, or without a key nobody.

    Raises ValueError or WorldError for the first that does not hold.
    """
    contents = [
        one.statement(key) for one in attached(place) if one.predicate_type == PREDICATES[kind]
    ]
    return tuple(
        Payload(content=data, statement=read_statement(kind, data, place.image.digest))
        for data in contents
        if data is not None
    )


@dataclass(kw_only=True)
class Looks:
    checks: list[Check] = field(default_factory=list)

    def at(self, name: str, look: Callable[[], tuple[str, T]]) -> T | None:
        started, value, passed = time.monotonic(), None, True
        try:
            seen, value = look()
        except (ValueError, PipelineError) as error:
            seen, passed = str(error), False
        seconds = round(time.monotonic() - started, 2)
        self.checks.append(Check(name=name, passed=passed, seen=seen, seconds=seconds))
        return value


def _whole(place: Place) -> tuple[str, None]:
    """Every byte of config and layers, hashed."""
    for blob in place.image.blobs:
        place.registry.save_blob(place.repository, blob.digest, Path(os.devnull))
    size = sum(blob.size_bytes for blob in place.image.blobs)
    return f"{place.image.digest}, {size / 1e6:.1f} MB in {len(place.image.blobs)} blobs", None


def _signature(asked: Asked) -> tuple[str, None]:
    if asked.key is None:
        signed = sum(one.is_signed for one in attached(asked.place))
        return f"none asked for, by --unsigned; {signed} signed statements were not looked at", None
    name = check_signature(asked.place, asked.key)
    return f"as {name}, by {asked.key.fingerprint}", None


def _stated(asked: Asked, kind: Kind) -> tuple[str, tuple[Payload, ...]]:
    found = stated(asked.place, kind, asked.key)
    if not found:
        by = "that this key signed" if asked.key else "that needs no key"
        raise DisagreementError(f"none {by} is attached to the image")
    newest, more = sha256_bytes(found[-1].content), len(found) - 1
    others = f", and {more} more" if more else ""
    return f"{'signed' if asked.key else 'unsigned'}: statement {newest}{others}", found


def _tagged(asked: Asked, found: Mapping[Kind, Sequence[Payload]]) -> tuple[str, None]:
    """What cosign 2 reads is what later versions read; this key may have signed more, such as a scan."""
    tag = asked.place.statements_tag
    signed = tagged_statements(asked.place, asked.key) if asked.key else ()
    tagged = {one for one in signed if json.loads(one).get("predicateType") in PREDICATES.values()}
    referring = {one.content for payloads in found.values() for one in payloads}
    if asked.key and (not tagged or tagged != referring):
        raise DisagreementError(f"{tag} holds other statements than refer to the image")
    return f"{tag}: the same statements" if asked.key else "none asked for, by --unsigned", None


def _record(asked: Asked, payloads: Sequence[Payload]) -> tuple[str, Sealed]:
    """The record of the release that the tag names, else of the newest; of several the one in the release index."""
    image, known = asked.place.image, sealed_records([one.statement for one in payloads])
    if not known:
        raise DisagreementError("not looked at: it needs a record that holds")
    release = _release_of(asked) or newest_release(asked.place, known)
    found = record_of_release(asked.place, known, release)
    if found is None:
        raise DisagreementError(f"no record of release {release} is attached to the image")
    record, content = found
    config = image.content.config
    seen = record_agrees(record, image.digest, config.digest if config else "")
    return seen, (record, content)


def _release_of(asked: Asked) -> str | None:
    """The one that the tag names."""
    return asked.tag if asked.tag and CALVER.match(asked.tag) else None


def _bill(asked: Asked, payloads: Sequence[Payload], sealed: Sealed | None) -> tuple[str, None]:
    if not payloads or sealed is None:
        raise DisagreementError("not looked at: it needs an SBOM and a record that hold")
    bill, digest = payloads[-1].statement.predicate, asked.place.image.digest
    return bill_agrees(bill, sealed[0], digest), None


def _origin(asked: Asked, payloads: Sequence[Payload], sealed: Sealed | None) -> tuple[str, None]:
    if not payloads or sealed is None:
        raise DisagreementError("not looked at: it needs a provenance and a record that hold")
    return origin_agrees(payloads[-1].statement.predicate, sealed[0], asked.labels()), None


def _index(asked: Asked, sealed: Sealed | None) -> tuple[str, None]:
    """What the registry says of the release as a whole, and whether the image was withdrawn."""
    registry, repository = asked.place.registry, asked.place.repository
    digest = asked.place.image.digest
    release = sealed[0].release if sealed else _release_of(asked) or ""
    if stones := _withdrawn(asked, sealed[0] if sealed else None, release):
        raise DisagreementError("; ".join(stone.sentence for stone in stones))
    if sealed is None:
        raise DisagreementError("not looked at: it needs a record that holds")
    record, content = sealed
    index = read_index(asked.place, record.release)
    if f"{registry.host}/{repository}" != record.about.repository:
        if index:
            not_of_another(index, repository, digest)
        return f"none here: the image is released as {record.about.repository}", None
    if index is None:
        raise DisagreementError(f"release {record.release} has none: it was not promoted")
    return index_agrees(index, record, content, digest), None


def _withdrawn(asked: Asked, record: Record | None, release: str) -> tuple[Tombstone, ...]:
    """Where it lies, and where this registry has it under its own name: there its tombstones are."""
    registry, digest = asked.place.registry, asked.place.image.digest
    host, _, own = record.about.repository.partition("/") if record else ("", "", "")
    places = {asked.place.repository, *([own] if host == registry.host else [])}
    said = [withdrawn_from(registry, place, digest, release) for place in sorted(places)]
    return tuple(dict.fromkeys(stone for stones in said for stone in stones))


def _card(asked: Asked, sealed: Sealed | None) -> tuple[str, None]:
    """Published files, or the card as this checkout makes it from the record."""
    if sealed is None:
        raise DisagreementError("not looked at: it needs a record that holds")
    record = sealed[0]
    given = {path.name: path.read_bytes() for path in asked.cards}
    if given and _is_of_withdrawn(asked, record, given):
        return f"{', '.join(sorted(given))}: as the record gives it, with who withdrew it", None
    if given:
        return cards_agree(given, record), None
    try:
        return cards_agree(asked.made(record, None), record), None
    except DisagreementError as error:
        raise DisagreementError(
            f"{error}; this checkout may have other templates than the release:"
            " give the published card with --card FILE"
        ) from error


def _is_of_withdrawn(asked: Asked, record: Record, given: Mapping[str, bytes]) -> bool:
    """The card that was written anew when the image was taken back."""
    stones = _withdrawn(asked, record, record.release)
    return bool(stones) and {*given.values()} <= {*asked.made(record, stones[-1]).values()}
