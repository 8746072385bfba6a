"""Rewritten cards to the hubs: only of promoted releases, and only where they differ from what was published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.canonical import sha256_bytes
from pipeline.fetching import Source
from pipeline.keys import Parts, key_of
from pipeline.names import index_repository, names
from pipeline.naming import release_order
from pipeline.parts import card_parts, publish_parts
from pipeline.project import Project
from pipeline.record import Record, StageName, StageRecord
from pipeline.results import PromoteResult
from pipeline.rewriting import Card
from pipeline.stages.card import card_result
from pipeline.stages.publish import HUB_FILES, describe, publish
from pipeline.statements import sealed_sha256
from pipeline.world.hub import Hub
from pipeline.world.indexes import Indexes, stored


def publish_changed(
    source: Source, cards: Sequence[Card], hubs: Sequence[Hub], say: Callable[[str], None]
) -> None:
    """`hubs` are those of the target. A record in out/ keeps what was published; one in records/ stays as it is.

    So does one that was fetched.
    """
    project, target, registry = source.project, source.target, source.registry
    cells = {cell.id: cell for cell in project.cells}
    indexes = Indexes(registry=registry, index_repository=index_repository(target))
    for card, kept in _newest(cards):
        record = kept if kept.stages.promote else _as_promoted(kept, indexes)
        promoted = record.stages.promote
        if promoted is None or promoted.status != "passed":
            say(f"{record.cell} {record.release}: not promoted, so not published")
        elif _is_published(record, card, hubs) and not _has_later(project, record):
            say(f"{record.cell} {record.release}: published as it is")
        else:
            written = _with_card(project, record, card)
            result = publish(written, card.files, hubs, record.about.hub_name)
            for done in result.publications:
                state = "published" if done.changed else "is the same already"
                say(f"{record.cell} {record.release}: {done.location} {state}")
            repositories = names(cells[record.cell], target).public_repositories
            describe(registry, repositories, card.files, result.publications, say)
            if kept.stages.promote and card.folder.is_relative_to(project.store.root):
                parts = publish_parts(written.stages, [hub.text for hub in target.hubs])
                project.store.write(
                    written.with_stage("publish", _stage(record, "publish", parts, result))
                )


def _as_promoted(record: Record, indexes: Indexes) -> Record:
    """A record that was fetched was sealed before it was promoted; that it was, the release index says of its bytes."""
    registry = indexes.registry
    if record.about.repository.partition("/")[0] != registry.host:
        return record
    index = indexes.index(record.release)
    if index is None:
        return record
    sha256 = sealed_sha256(record)
    for cell in index.cells:
        if cell.record_sha256 == sha256:
            result = PromoteResult(
                reference=f"{registry.host}/{cell.repository}@{cell.digest}",
                tag=record.release,
                digest=cell.digest,
                copied_bytes=0,
                mounted_blobs=0,
                index=stored(index).digest,
                left_out=index.left_out,
                waiver=cell.waiver,
            )
            return record.with_stage("promote", _stage(record, "promote", {}, result))
    return record


def _has_later(project: Project, record: Record) -> bool:
    """A later release, which may have been published since, and withdrawn: then the hubs are asked what they show."""
    found = (
        store.releases(record.chip, record.model) for store in (project.store, project.records)
    )
    mine = release_order(record.release)
    return any(release_order(name) > mine for names in found for name in names)


def _with_card(project: Project, record: Record, card: Card) -> Record:
    parts = card_parts(
        record.about, record.stages, record.release, project.template_hashes, project.source_hashes
    )
    return record.with_stage("card", _stage(record, "card", parts, card_result(card.files)))


def _stage(record: Record, name: StageName, parts: Parts, result: Any) -> StageRecord[Any]:
    """Done now; on the node that did it before, for no node has a part in it."""
    old = record.stages.get(name) or record.stages.smoke
    return StageRecord(
        key=key_of(parts),
        parts=dict(parts),
        status="passed",
        node=old.node if old else "",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        result=result,
    )


def _newest(cards: Sequence[Card]) -> Iterator[tuple[Card, Record]]:
    """Of each cell the newest release; that of out/ where records/ has it too."""
    best: dict[str, tuple[Card, Record]] = {}
    for card in cards:
        if not isinstance(card.record, Record):
            continue
        found = best.get(card.record.cell)
        newer = found and release_order(card.record.release) > release_order(found[1].release)
        if found is None or newer:
            best[card.record.cell] = (card, card.record)
    yield from best.values()


def _is_published(record: Record, card: Card, hubs: Sequence[Hub]) -> bool:
    stage = record.stages.publish
    if stage is None or stage.result is None or stage.status != "passed":
        return False
    now = {HUB_FILES[name]: sha256_bytes(data) for name, data in card.files.items()}
    held = {
        publication.hub: {file.path: file.sha256 for file in publication.files}
        for publication in stage.result.publications
    }
    return all(now.items() <= held.get(hub.name, {}).items() for hub in hubs)
