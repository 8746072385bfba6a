"""Records that are attached to an image, and which of them counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.agreement import Statement
from pipeline.canonical import sha256_bytes
from pipeline.names import INDEXES
from pipeline.naming import release_order
from pipeline.record import Record, parse_record
from pipeline.release_index import ReleaseIndex, index_tag, parse_index
from pipeline.statements import stated_record, stated_release
from pipeline.world.attachments import Place
from pipeline.world.indexes import tombstones
from pipeline.world.registry_artifacts import read_artifact

Sealed = tuple[Record, bytes]  # a record, and its bytes as they were attested


def sealed_records(statements: Iterable[Statement]) -> dict[str, list[bytes]]:
    """Records as they were attested, by release, oldest first: an image that did not change is in many.

    They are not read: that of another release may be of another version of the pipeline.
    """
    found: dict[str, list[bytes]] = {}
    for one in statements:
        found.setdefault(stated_release(one.predicate), []).append(stated_record(one.predicate))
    return dict(sorted(found.items(), key=lambda of: release_order(of[0])))


def record_of_release(
    place: Place, known: Mapping[str, Sequence[bytes]], release: str
) -> Sealed | None:
    """The one that the release index names: a second run under the same name attaches its record to the same image."""
    mine = known.get(release)
    if not mine:
        return None
    index = read_index(place, release) if len(mine) > 1 else None
    named = {cell.record_sha256 for cell in index.cells} if index else set()
    content = next((one for one in mine if sha256_bytes(one) in named), mine[-1])
    return parse_record(content, f"record of {release}, attached to {place.repository}"), content


def newest_release(place: Place, known: Mapping[str, Sequence[bytes]]) -> str:
    """The newest whose index names the image; before those that were rolled back, and those that were not promoted."""
    said = tombstones(place.registry, place.repository, place.image.digest)
    back = {stone.release for stone in said if stone.event == "rolled_back"}
    standing = [release for release in known if release not in back]
    promoted = [release for release in reversed(standing) if _is_promoted(place, release)]
    return promoted[0] if promoted else (standing or list(known))[-1]


def _is_promoted(place: Place, release: str) -> bool:
    index = read_index(place, release)
    return index is not None and place.image.digest in {cell.digest for cell in index.cells}


def read_index(place: Place, release: str) -> ReleaseIndex | None:
    """The one that lies beside the public repositories; nothing but the image's place tells where."""
    indexes, tag = f"{place.repository.rpartition('/')[0]}/{INDEXES}", index_tag(release)
    found = read_artifact(place.registry, indexes, tag)
    return None if found is None else parse_index(found, f"{indexes}:{tag}")
