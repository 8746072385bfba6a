"""rollback and yank as commands: who withdraws what, and the tombstones beside the records."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from pipeline.cell import Cell
from pipeline.errors import UsageError
from pipeline.matrix import Target
from pipeline.names import index_repository
from pipeline.project import Project
from pipeline.release_index import Tombstone
from pipeline.stages.withdraw import Withdrawal, rollback, yank
from pipeline.tombstones import keep_tombstone
from pipeline.world.registry import Registry
from pipeline.world.shelf import Shelf

Say = Callable[[str], None]


def shelf_of(project: Project, target: Target) -> Shelf:
    return Shelf(
        registry=Registry(target.registry.partition("/")[0]),
        index_repository=index_repository(target),
        journals=project.journals,
    )


def asked(release: str | None, reason: str, by: str | None) -> Withdrawal:
    """Raises UsageError unless it names a release and a reason."""
    missing = [name for name, given in (("--release", release), ("--reason", reason)) if not given]
    if missing or release is None:
        raise UsageError(
            f"what is withdrawn needs {' and '.join(missing)}",
            hint="the reason is shown to everybody who looks at the image",
        )
    return Withdrawal(
        release=release,
        by=by or getpass.getuser(),
        reason=reason,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def roll_back(project: Project, shelf: Shelf, withdrawal: Withdrawal, say: Say) -> None:
    _keep(project, rollback(withdrawal, shelf, say=say), say)


def yank_cells(
    project: Project, shelf: Shelf, withdrawal: Withdrawal, cells: Sequence[Cell], say: Say
) -> None:
    _keep(project, yank(withdrawal, [cell.id for cell in cells], shelf, say=say), say)


def _keep(project: Project, stones: Sequence[Tombstone], say: Say) -> None:
    for stone in stones:
        say(f"{stone.cell}: {stone.sentence}")
        for store in (project.store, project.records):
            if path := keep_tombstone(store, stone):
                say(f"wrote {path.relative_to(project.root)}")
