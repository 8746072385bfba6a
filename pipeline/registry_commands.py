"""rollback, yank and gc as commands: who withdraws what, the tombstones beside the records, what nothing names."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from datetime import UTC, datetime

from pipeline.cells import select
from pipeline.collecting import collect_unnamed
from pipeline.errors import UsageError
from pipeline.flow import ask_consent
from pipeline.matrix import Target
from pipeline.names import index_repository
from pipeline.options import Options
from pipeline.project import Project
from pipeline.release_index import Tombstone
from pipeline.reporter import Reporter
from pipeline.selection import project_of
from pipeline.stages.withdraw import Withdrawal, rollback, yank
from pipeline.withdrawals import show_withdrawal
from pipeline.world.harbor import registry_of
from pipeline.world.shelf import Shelf


def roll_back(options: Options, report: Reporter) -> int:
    """A whole release."""
    project, asked = project_of(options), _asked(options)
    shelf = _shelf(project, project.target(options.target))
    ask_consent(options, "promote")
    _show(project, rollback(asked, shelf, say=report.say), options, report)
    return 0


def yank_cells(options: Options, report: Reporter) -> int:
    """Cells of a release; they have to be named."""
    project, asked = project_of(options), _asked(options)
    if not options.cells:
        raise UsageError("name the cells to yank", hint="rollback takes a whole release back")
    cells = [cell.id for cell in select(project.matrix, options.cells)]
    shelf = _shelf(project, project.target(options.target))
    ask_consent(options, "promote")
    _show(project, yank(asked, cells, shelf, say=report.say), options, report)
    return 0


def print_unnamed(options: Options, report: Reporter) -> int:
    """What of staging nothing names any more."""
    if not options.dry_run:
        raise UsageError(
            "gc deletes nothing yet", hint="--dry-run says what nothing names any more"
        )
    project = project_of(options)
    target = project.target(options.target)
    staging = registry_of(target, (target.staging or target.registry).partition("/")[0])
    found = collect_unnamed(project, target, staging, _shelf(project, target))
    if found.unnamed:
        rows = [(one.repository, one.tag, one.manifest.digest) for one in found.unnamed]
        report.table(("repository", "tag", "digest"), rows)
    report.say(
        f"{len(found.unnamed)} of {len(found.unnamed) + len(found.kept)} tags in staging are named by no record,"
        f" card, index or public tag; {found.freed_bytes / 1e6:.1f} MB are theirs alone"
    )
    return 0


def _asked(options: Options) -> Withdrawal:
    """Raises UsageError unless it names a release and a reason."""
    release, reason = options.release, options.reason
    missing = [name for name, given in (("--release", release), ("--reason", reason)) if not given]
    if missing or release is None:
        raise UsageError(
            f"what is withdrawn needs {' and '.join(missing)}",
            hint="give the name of the release, and a reason, which everybody sees who looks at the image",
        )
    return Withdrawal(
        release=release,
        by=options.by or getpass.getuser(),
        reason=reason,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _shelf(project: Project, target: Target) -> Shelf:
    return Shelf(
        registry=registry_of(target, target.registry.partition("/")[0]),
        index_repository=index_repository(target),
        journals=project.journals,
    )


def _show(
    project: Project, stones: Sequence[Tombstone], options: Options, report: Reporter
) -> None:
    """On the cards here, and how it gets to those that are public."""
    for stone in stones:
        report.say(f"{stone.cell}: {stone.sentence}")
        show_withdrawal(project, stone, stone.release, report.say)
    where = f" --target {options.target} --yes" if options.target != "local" else ""
    for stone in stones:
        shown = f"release {stone.replaced_by}" if stone.replaced_by else "that it was withdrawn"
        report.say(
            f"the hubs show {stone.cell} as before. So that they show {shown}:"
            f" nox -s cards -- {stone.cell} --publish{where}"
        )
