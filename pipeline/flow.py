"""Cells through the flow: plan, name of the release, consent, then all stages, and the table at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from pipeline import noop
from pipeline.cell import Cell
from pipeline.errors import NothingSelectedError, UsageError, WorldError
from pipeline.limits import PUSH, limits_of
from pipeline.names import names
from pipeline.naming import check_name, is_open, newest_release, next_release, release_tag
from pipeline.options import Options
from pipeline.overview import print_images, print_outcomes, print_plan
from pipeline.record import STAGES, Record, StageName
from pipeline.reporter import Reporter
from pipeline.resources import Resources
from pipeline.selection import Selection, selection_of
from pipeline.workers import per_thread
from pipeline.world import git

if TYPE_CHECKING:
    from pipeline.cell_release import CellRelease, World
    from pipeline.matrix import Target
    from pipeline.world.engine import Engine

ALLOW_PARTIAL = (
    "FLAGRELEASE_ALLOW_PARTIAL"  # "true" is --allow-partial; for workflows, which hold no logic
)


def flow(
    options: Options, report: Reporter, *, until: StageName, since: StageName = STAGES[0]
) -> int:
    """Plan, then run what is not done; the exit code of the first cell that failed.

    With `since`, a later stage of a release whose records are here; what is before it runs nowhere.
    """
    begun = noop.before(options)
    engine = lazy_engine(cleans=not options.dry_run)
    selection = selection_of(options, builder=_builder_of(engine))
    resources = Resources(limits_of(options.jobs, selection.project.matrix.chips))
    if options.dry_run:
        print_plan(selection.actions(_planned_name(options, selection), until), report)
        return 0
    _refuse_unsigned(options, selection.project.target(options.target), until)
    ask_consent(options, until)
    from pipeline.cell_release import World
    from pipeline.release import release_cells
    from pipeline.world.harbor import registry_of
    from pipeline.world.hubs import hubs_of

    target = selection.project.target(options.target)
    registry = per_thread(partial(registry_of, target, at_once=resources.most(PUSH)))
    hubs = per_thread(partial(hubs_of, target.hubs, selection.project.root))
    if until == "publish":
        hubs()  # a missing token is told before anything runs, not after it
    is_begun = since != STAGES[0]
    allow_partial = options.allow_partial or os.environ.get(ALLOW_PARTIAL) == "true"
    release = (
        _begun(options, selection, until, allow_partial=allow_partial)
        if is_begun
        else _name(
            options,
            selection,
            until,
            lambda cell: registry(names(cell, target).host).tags(names(cell, target).public),
        )
    )
    _try_signing_key(selection, release, until)
    world = World(
        engine=engine,
        registry=registry,
        hubs=hubs,
        revision=git.revision(),
        report=report,
        resources=resources,
    )
    absent = _absent(selection, release) if is_begun else ()
    runs = [
        _start(cell, selection, target, release, world)
        for cell in selection.cells
        if cell.id not in absent
    ]
    known = noop.begin(begun, runs)
    outcomes = release_cells(
        runs,
        until,
        since=since,
        again=options.again,
        allow_partial=allow_partial,
        absent=dict.fromkeys(absent, "no record of it came here"),
        fail_fast=options.fail_fast,
    )
    if all(outcome.status == "reused" for outcome in outcomes):
        noop.remember(options, known, runs)
    print_outcomes(outcomes, release, report)
    print_images([run.record for run in runs], report)
    # Cells that were refused together have one error.
    errors = list(dict.fromkeys(outcome.error for outcome in outcomes if outcome.error))
    for error in errors:
        report.error(error)
    return errors[0].exit_code if errors else 0


def _absent(selection: Selection, release: str | None) -> tuple[str, ...]:
    """Cells without a record in a release."""
    return tuple(
        cell.id
        for cell in selection.cells
        if all(record.release != release for record in selection.past[cell.id])
    )


def _begun(options: Options, selection: Selection, until: StageName, *, allow_partial: bool) -> str:
    """The release given, or the newest. Raises NothingSelectedError for cells that have no record in it."""
    release = options.release or release_tag(git.tags_of_head()) or newest_release(selection.past)
    absent = _absent(selection, release)
    if release is None or (absent and not (allow_partial and len(absent) < len(selection.cells))):
        raise NothingSelectedError(
            f"no record of {', '.join(absent)} is in release {release}",
            where=until,
            hint="bring out/<release>/<chip>/<model> from where it was made, name another release with --release, "
            f"leave cells out with --allow-partial, or make it: nox -s release -- {absent[0]}",
        )
    return release


def _start(
    cell: Cell, selection: Selection, target: Target, release: str, world: World
) -> CellRelease:
    """A cell before its first stage, with what its record says of this release already."""
    from pipeline.cell_release import CellRelease

    about, known = selection.inputs[cell.id].about, selection.past[cell.id]
    record = next((found for found in known if found.release == release), None) or Record(
        cell=cell.id, chip=cell.chip_id, model=cell.model_id, release=release, about=about
    )
    return CellRelease(
        cell=cell,
        inputs=selection.inputs[cell.id],
        target=target,
        project=selection.project,
        world=world,
        release=release,
        past=known,
        record=record.model_copy(update={"about": about}),
    )


def _name(
    options: Options,
    selection: Selection,
    until: StageName,
    public_tags: Callable[[Cell], Sequence[str]],
) -> str:
    """The name given, the git tag, the newest release when it is open or has nothing to do, or the next free one."""
    if options.node and not options.release:
        raise UsageError(
            "on a node without network a release needs a name", hint="add --release NAME"
        )
    given = options.release or release_tag(git.tags_of_head())
    if given:
        return check_name(given)
    newest = newest_release(selection.past)
    if newest and (is_open(newest, selection.past) or _nothing_to_do(selection, newest, until)):
        return newest
    taken = {record.release for records in selection.past.values() for record in records}
    taken |= {tag for cell in selection.cells for tag in public_tags(cell)}
    return next_release(datetime.now(UTC).date(), taken)


def _planned_name(options: Options, selection: Selection) -> str:
    if options.release:
        return check_name(options.release)
    return newest_release(selection.past) or "(next)"


def _nothing_to_do(selection: Selection, release: str, until: StageName) -> bool:
    return all(action.kind == "reuse" for action in selection.actions(release, until))


def lazy_engine(*, cleans: bool) -> Callable[[], Engine]:
    """Connects when it is first asked, once a thread; with `cleans` it then removes what killed runs left."""

    def connect() -> Engine:
        from pipeline.world.engine import Engine

        engine = Engine.connect()
        if cleans:
            engine.remove_left_over()
        return engine

    return per_thread(connect)


def _builder_of(engine: Callable[[], Engine]) -> str | None:
    """The engine's builder; None where no engine answers, which matters only once a stage needs one."""
    try:
        return engine().builder
    except WorldError:
        return None


def _refuse_unsigned(options: Options, target: Target, until: StageName) -> None:
    attests = STAGES.index(until) >= STAGES.index("attest")
    if options.target != "local" and attests and target.public_key is None:
        raise UsageError(
            f"the target {options.target} is public, so its releases are signed, and it names no public key",
            where=f"targets.{options.target}.public_key",
            hint=f"docs/attestations.md says how to make one{_or_earlier(options)}",
        )


def _try_signing_key(selection: Selection, release: str, until: StageName) -> None:
    """A key that is missing or wrong is told before anything runs, not after hours of measuring."""
    keys = {
        cell.id: key
        for cell in selection.cells
        if (key := selection.inputs[cell.id].about.release_key) and cell.chip.base.node is None
    }
    actions = selection.actions(release, until) if keys else ()
    signed = (a.cell for a in actions if (a.stage, a.kind) == ("attest", "run") and a.cell in keys)
    if cell_id := next(signed, None):
        from pipeline.world.signing_key import signing_key  # loads cryptography

        signing_key(keys[cell_id])


def ask_consent(options: Options, until: StageName) -> None:
    outward = STAGES.index(until) >= STAGES.index("promote")
    if options.target == "local" or not outward or options.yes:
        return
    if (
        sys.stdin.isatty()
        and input(f"{options.command} at {options.target}, for everybody to see? [y/N] ") == "y"
    ):
        return
    raise UsageError(
        f"the target {options.target} is public and needs consent",
        hint=f"add --yes{_or_earlier(options)}",
    )


def _or_earlier(options: Options) -> str:
    """Of the commands that go outward, one can be stopped before it does."""
    return "; or stop earlier with --until card" if options.command == "release" else ""
