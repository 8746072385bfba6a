"""What each command does, with everything outside passed on to the flow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.canonical import write_whole
from pipeline.cell import Cell, names, select
from pipeline.culprits import Level
from pipeline.errors import (
    InconclusiveError,
    PipelineError,
    StageRefusedError,
    UsageError,
    WorldError,
)
from pipeline.naming import check_name, is_open, newest_release, next_release, release_tag
from pipeline.overview import print_outcomes, print_plan
from pipeline.parts import Inputs
from pipeline.plan import Action, plan
from pipeline.project import Project
from pipeline.record import STAGES, Record, StageName
from pipeline.reporter import Reporter
from pipeline.stages.render import drift, render_all, write
from pipeline.world import git
from pipeline.world.node import node_class

if TYPE_CHECKING:
    from pipeline.release import Outcome
    from pipeline.world.engine import Engine


@dataclass(frozen=True, kw_only=True)
class Options:
    command: str
    cells: list[str] = field(default_factory=list)
    matrix: Path = Path("matrix.yaml")
    target: str = "local"
    release: str | None = None
    until: StageName = "publish"
    check: bool = False
    dry_run: bool = False
    json: bool = False
    yes: bool = False
    again: bool = False
    stack: str | None = None
    minutes: float = 60
    parallel: int = 1
    gpus: int = 1
    restart: bool = False
    level: Level = "fail"
    policy: Path | None = None
    draws: int = 3000
    seed: int = 0
    node: str | None = None
    published: bool = False
    pieces: str = "60MiB"
    folder: Path = Path()


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Cells, what their keys are made of, and their records."""

    project: Project
    cells: tuple[Cell, ...]
    inputs: Mapping[str, Inputs]
    past: Mapping[str, tuple[Record, ...]]

    def actions(self, release: str, until: StageName) -> tuple[Action, ...]:
        return plan(self.cells, self.inputs, self.past, release=release, until=until)


def do_render(options: Options, report: Reporter) -> int:
    project = _project(options)
    cells = select(project.matrix, options.cells)
    files = render_all(cells, project.templates)
    whole = not options.cells
    if options.check:
        difference = drift(project.root, files, whole_matrix=whole)
        if difference:
            raise PipelineError(
                "committed files differ from a fresh render",
                details=difference.rstrip(),
                hint="change matrix.yaml or templates/, then run nox -s render",
            )
        report.say(f"{len(files)} rendered files agree with what is committed")
        return 0
    changed = write(project.root, files, whole_matrix=whole)
    report.say("\n".join(changed) or f"{len(files)} rendered files, none changed")
    return 0


def do_lock(options: Options, report: Reporter) -> int:
    from pipeline.lock import LOCK_FILE, lock_bytes
    from pipeline.stages.lock import lock
    from pipeline.world.revisions import PublicHubs

    project = _project(options)
    locked, files = lock(project.matrix, old=project.lock, hubs=PublicHubs(), say=report.say)
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


def do_bundle(options: Options, report: Reporter) -> int:
    from pipeline.node_commands import bundle_cell

    bundle_cell(
        Project(Path.cwd(), options.matrix),
        options.cells,
        node=options.node,
        published=options.published,
        pieces=options.pieces,
        revision=git.revision(),
        report=report,
    )
    return 0


def do_collect(options: Options, report: Reporter) -> int:
    from pipeline.node_commands import collect_folder

    collect_folder(_project(options), options.folder, report)
    return 0


def do_plan(options: Options, report: Reporter) -> int:
    selection = _selection(options, builder=None)
    newest = newest_release(selection.past)
    actions = selection.actions(options.release or newest or "(next)", options.until)
    print_plan(actions, report, as_json=options.json)
    return 0


def do_release(options: Options, report: Reporter) -> int:
    return _flow(options, report, until=options.until)


def do_stage(options: Options, report: Reporter) -> int:
    until: StageName = next(stage for stage in STAGES if stage == options.command)
    return _flow(options, report, until=until)


def do_bisect(options: Options, report: Reporter) -> int:
    """Search one cell's newest built image; found is success, anything else says what is missing."""
    from pipeline.bisecting import Search, search_cell

    selection = _selection(options, builder=None)
    if len(selection.cells) != 1:
        named = ", ".join(cell.id for cell in selection.cells)
        raise UsageError(
            f"name exactly one cell to search in, this names {named}",
            hint="for example: bisect nvidia smollm2",
        )
    (cell,) = selection.cells
    search = Search(
        stack=options.stack or cell.chip.released,
        level=options.level,
        budget_s=options.minutes * 60,
        width=options.parallel,
        gpus=options.gpus,
        restarts=options.restart or options.parallel > 1,
    )
    project = selection.project
    log_path = project.bisect_folder(cell) / "bisect.log"
    with report.stage(cell.id, "bisect", log_path) as log:
        result, files = search_cell(
            cell,
            selection.past[cell.id],
            project,
            project.target(options.target),
            _lazy_engine(cleans=True),
            search,
            log.say,
        )
    report.say("\n".join([result.sentence, *(str(path) for path in files)]))
    if result.status == "found":
        return 0
    kind = StageRefusedError if result.status == "no_operator" else InconclusiveError
    raise kind(result.sentence, where=f"bisect of {cell.id}", hint=_NEXT[result.status])


_NEXT: Mapping[str, str] = {
    "no_operator": "compare the stacks' arguments and variables; nox -s smoke says what a served stack answers",
    "nothing_fails": "a warning is searched for with --level warn; the paired gate sees what the pre-gate cannot",
    "not_confirmed": "the server answers differently when asked again; look for a race or memory that runs out",
    "budget_ended": "run it again: what was probed is not probed twice; --minutes gives it longer",
}


def _flow(options: Options, report: Reporter, *, until: StageName) -> int:
    """Plan, then run what is not done, cell by cell; the exit code of the first cell that failed."""
    engine = _lazy_engine(cleans=not options.dry_run)
    selection = _selection(options, builder=_builder_of(engine))
    if options.dry_run:
        print_plan(
            selection.actions(_planned_name(options, selection), until), report, as_json=False
        )
        return 0
    _ask_consent(options, until)
    from pipeline.release import release_cell
    from pipeline.steps import CellRelease, World
    from pipeline.world.registry import Registry

    registry = cache(Registry)
    target = selection.project.target(options.target)
    release = _name(
        options,
        selection,
        until,
        lambda cell: registry(names(cell, target).host).tags(names(cell, target).public),
    )
    world = World(engine=engine, registry=registry, revision=git.revision(), report=report)
    outcomes: list[Outcome] = []
    for cell in selection.cells:
        known = selection.past[cell.id]
        record = next((found for found in known if found.release == release), None) or Record(
            cell=cell.id,
            chip=cell.chip_id,
            model=cell.model_id,
            release=release,
            about=selection.inputs[cell.id].about,
        )
        going = CellRelease(
            cell=cell,
            inputs=selection.inputs[cell.id],
            target=target,
            project=selection.project,
            world=world,
            release=release,
            past=known,
            record=record.model_copy(update={"about": selection.inputs[cell.id].about}),
        )
        outcomes += release_cell(going, until, options.again)
    print_outcomes(outcomes, release, report)
    errors = [outcome.error for outcome in outcomes if outcome.error]
    for error in errors:
        sys.stderr.write(f"error: {error}\n")
    return errors[0].exit_code if errors else 0


def _project(options: Options) -> Project:
    return Project(Path.cwd(), options.matrix, options.node, published=options.published)


def _selection(options: Options, *, builder: str | None) -> Selection:
    project = _project(options)
    cells = select(project.matrix, options.cells)
    target, past = project.target(options.target), project.past(cells)
    inputs = {}
    for cell in cells:
        last = next(
            (
                r.stages.build.result.builder
                for r in past[cell.id]
                if r.stages.build and r.stages.build.result
            ),
            None,
        )
        inputs[cell.id] = project.inputs(
            cell, target, builder=builder or last, node=node_class(cell.chip.smi)
        )
    return Selection(project=project, cells=cells, inputs=inputs, past=past)


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
    return options.release or newest_release(selection.past) or "(next)"


def _nothing_to_do(selection: Selection, release: str, until: StageName) -> bool:
    return all(action.kind == "reuse" for action in selection.actions(release, until))


def _lazy_engine(*, cleans: bool) -> Callable[[], Engine]:
    @cache
    def connect() -> Engine:
        from pipeline.world.engine import Engine

        engine = Engine.connect()
        if cleans:
            engine.remove_left_over()
        return engine

    return connect


def _builder_of(engine: Callable[[], Engine]) -> str | None:
    """The engine's builder; None where no engine answers, which matters only once a stage needs one."""
    try:
        return engine().builder
    except WorldError:
        return None


def _ask_consent(options: Options, until: StageName) -> None:
    outward = STAGES.index(until) >= STAGES.index("promote")
    if options.target == "local" or not outward or options.yes:
        return
    if (
        sys.stdin.isatty()
        and input(f"release to {options.target}, for everybody to see? [y/N] ") == "y"
    ):
        return
    raise UsageError(
        f"the target {options.target} is public and needs consent",
        hint="add --yes, or stop earlier with --until card",
    )


def do_gate(options: Options, report: Reporter) -> int:
    from pipeline.judging import judge_stored

    project = _project(options)
    judge_stored(
        project,
        select(project.matrix, options.cells),
        release=options.release,
        policy=options.policy,
        report=report,
    )
    return 0


def do_simulate(options: Options, report: Reporter) -> int:
    from pipeline.simulating import print_tables

    print_tables(
        _project(options).matrix.gate, draws=options.draws, seed=options.seed, report=report
    )
    return 0


COMMANDS: Mapping[str, Callable[[Options, Reporter], int]] = {
    "release": do_release,
    "plan": do_plan,
    "render": do_render,
    "lock": do_lock,
    "bisect": do_bisect,
    "gate": do_gate,
    "simulate": do_simulate,
    "bundle": do_bundle,
    "collect": do_collect,
    **{stage: do_stage for stage in STAGES if stage != "render"},
}
