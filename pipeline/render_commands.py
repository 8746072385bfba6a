"""render, page and lock: they write files that are committed."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.canonical import write_whole
from pipeline.cells import select
from pipeline.errors import PipelineError
from pipeline.layers import refuse_edited_lock
from pipeline.options import Options
from pipeline.project import Project
from pipeline.reporter import Reporter
from pipeline.selection import project_of
from pipeline.stages.render import drift, render_all, write


def do_render(options: Options, report: Reporter) -> int:
    project = project_of(options)
    cells = select(project.matrix, options.cells)
    files = render_all(cells, project.templates)
    _write_or_check(project, files, options, report, whole=not options.cells)
    for cell in cells if options.check else ():
        refuse_edited_lock(cell, project.lock, project.files(cell))
    return 0


def do_page(options: Options, report: Reporter) -> int:
    from pipeline.matrix_page import committed_records, imported_cards, page_files

    project = project_of(options)
    records, imported = committed_records(project.root), imported_cards(project.root)
    files = page_files(project.matrix, records, imported, project.templates)
    _write_or_check(project, files, options, report, whole=False)
    return 0


def _write_or_check(
    project: Project, files: Mapping[str, bytes], options: Options, report: Reporter, *, whole: bool
) -> None:
    if not options.check:
        changed = write(project.root, files, whole_matrix=whole)
        report.say("\n".join(changed) or f"{len(files)} rendered files, none changed")
        return
    difference = drift(project.root, files, whole_matrix=whole)
    if difference:
        raise PipelineError(
            "committed files differ from a fresh render",
            details=difference.rstrip(),
            hint=f"change what they are rendered from, then run nox -s {options.command}",
        )
    report.say(f"{len(files)} rendered files agree with what is committed")


def do_lock(options: Options, report: Reporter) -> int:
    from pipeline.lock import LOCK_FILE, lock_bytes
    from pipeline.stages.lock import lock
    from pipeline.world.revisions import PublicHubs

    project = project_of(options)
    cells = select(project.matrix, options.cells)
    locked, files = lock(
        project.matrix,
        chips=tuple(dict.fromkeys(cell.chip_id for cell in cells)),
        models=tuple(dict.fromkeys(cell.model_id for cell in cells)),
        old=project.lock,
        hubs=PublicHubs(),
        say=report.say,
    )
    for path, content in files.items():
        write_whole(project.root / path, content)
    write_whole(project.root / LOCK_FILE, lock_bytes(locked))
    missing = [
        f"{kind} {name}: {pin.why}"
        for kind, pins in (("requirements of", locked.requirements), ("weights of", locked.weights))
        for name, pin in pins.items()
        if pin.why
    ]
    report.say("\n".join([f"wrote {LOCK_FILE}", *(f"null: {line}" for line in missing)]))
    return 0
