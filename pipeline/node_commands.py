"""What `bundle` and `collect` do: the two ends of the way to a node without network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.cell import Cell
from pipeline.cells import one_cell, select
from pipeline.errors import StageRefusedError
from pipeline.names import names
from pipeline.nodes import node_of
from pipeline.project import Project
from pipeline.reporter import Reporter
from pipeline.stages.bundle import Bundling, Published, bundle, described
from pipeline.stages.card import card
from pipeline.stages.collect import Collected, collect
from pipeline.world.pieces import parse_size
from pipeline.world.registry import Registry


def bundle_cell(
    project: Project,
    words: Sequence[str],
    *,
    node: str | None,
    published: bool,
    pieces: str,
    revision: str,
    report: Reporter,
) -> None:
    """Raises UsageError unless exactly one cell is selected and its node is clear."""
    piece_bytes = parse_size(pieces)
    selected = one_cell(select(project.matrix, words), "bundle", "bundle nvidia smollm2")
    name = node_of(project.matrix, selected.chip_id, node)
    there = Project(project.root, project.matrix_path, name, published=published)
    (cell,) = select(there.matrix, [selected.id])
    made = bundle(
        cell,
        Bundling(
            root=project.root,
            node_id=name,
            node=there.matrix.nodes[name],
            lock=there.lock,
            published=_published(project, selected) if published else None,
            downloads=project.share / "download",
            piece_bytes=piece_bytes,
            revision=revision,
            say=report.say,
        ),
    )
    report.table(("in the bundle", "size"), described(made))
    report.say(f"{made.folder}: carry these pieces to {name}; docs/air-gapped.md says how to go on")


def _published(project: Project, cell: Cell) -> Published:
    """The images of the cell's newest build, in the registry that holds them."""
    built = (record.stages.build for record in project.past([cell])[cell.id])
    result = next((stage.result for stage in built if stage and stage.result), None)
    if result is None or result.model.manifest_digest is None:
        raise StageRefusedError(
            "there is no published image to carry",
            where=cell.id,
            hint=f"nox -s build -- {cell.chip_id} {cell.model_id}, or a bundle without --published",
        )
    host = names(cell, project.target("local")).staging_host
    return Published(registry=Registry(host), images=result.images)


def collect_folder(project: Project, folder: Path, report: Reporter) -> None:
    """Merge what came back, and write the cards that its records allow."""
    cells = {cell.id for cell in project.cells}
    for done in collect(folder, root=project.root, cells=cells):
        news = ", ".join(done.new_stages) or "nothing new"
        report.say(f"{done.record.release} {done.record.cell}: {news} ({done.files} files)")
        _write_card(project, done, report)


def _write_card(project: Project, done: Collected, report: Reporter) -> None:
    try:
        files = card(done.record, project.templates)
    except StageRefusedError as incomplete:
        report.say(f"no card yet: {incomplete}")
        return
    for name, content in files.items():
        write_whole(done.folder / name, content)
        report.say(f"wrote {done.folder / name}")
