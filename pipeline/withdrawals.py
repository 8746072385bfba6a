"""What was withdrawn, on the cards here: tombstones are copied beside the records, and the cards written anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipeline.cell import Cell
from pipeline.cells import select
from pipeline.errors import PipelineError
from pipeline.project import Project
from pipeline.record import Record
from pipeline.release_index import Tombstone
from pipeline.rewriting import cards_of, newest_records
from pipeline.tombstones import keep_tombstone
from pipeline.world.indexes import withdrawn_from
from pipeline.world.registry import Registry

Say = Callable[[str], None]


def show_withdrawal(project: Project, stone: Tombstone, release: str, say: Say) -> None:
    """Copy the tombstone beside the records of a release, in out/ and records/, and write their cards with it."""
    chip, _, model = (stone.cell or "").partition("/")
    folders = [store.folder(release, chip, model) for store in (project.store, project.records)]
    kept = [path for folder in folders if (path := keep_tombstone(folder, stone))]
    for path in kept:
        say(f"wrote {path.relative_to(project.root)}")
    if not kept:
        return
    try:
        for card in cards_of(project, select(project.matrix, (f"{chip}/{model}",)), release):
            card.write()
            for name in card.changed:
                say(f"wrote {(card.folder / name).relative_to(project.root)}")
    except PipelineError as error:
        say(f"the card of {stone.cell} {release} does not say so yet: {error}")


def ask_for_withdrawals(
    project: Project, cells: Sequence[Cell], release: str | None, registry: Registry, say: Say
) -> None:
    """Ask the registry what was said of the newest images. Where it cannot be asked, the copies here count."""
    found = [record for cell in cells for record, _ in newest_records(project, cell, release)]
    try:
        for record in found:
            if isinstance(record, Record) and (stone := _tombstone(record, registry)):
                show_withdrawal(project, stone, record.release, say)
    except PipelineError as error:
        say(f"{registry.host} was not asked what was withdrawn, so the copies here count: {error}")


def _tombstone(record: Record, registry: Registry) -> Tombstone | None:
    """The last word on the image of a record that is in this registry.

    By its digest in staging: a record that was fetched was sealed before it was promoted.
    """
    host, _, repository = record.about.repository.partition("/")
    digest = record.image.manifest_digest if record.image else None
    if host != registry.host or digest is None:
        return None
    mine = withdrawn_from(registry, repository, digest, record.release)
    return mine[-1] if mine else None
