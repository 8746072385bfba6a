"""What each command does, with everything outside passed on to the flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.canonical import write_whole
from pipeline.card_commands import do_cards
from pipeline.cell import Cell, excluded_of, select
from pipeline.errors import (
    InconclusiveError,
    PipelineError,
    StageRefusedError,
    UsageError,
)
from pipeline.flow import ask_consent, flow, lazy_engine
from pipeline.github import set_output
from pipeline.jobs import jobs, jobs_json
from pipeline.layers import refuse_edited_lock
from pipeline.naming import newest_release
from pipeline.options import Options
from pipeline.overview import print_excluded, print_json, print_keys, print_plan
from pipeline.project import Project
from pipeline.record import AFTER_THE_SEAL, STAGES, StageName
from pipeline.reporter import Reporter, StageLog
from pipeline.selection import project_of, selection_of
from pipeline.stages.render import drift, render_all, write
from pipeline.world import git
from pipeline.world.login import USER, login

if TYPE_CHECKING:
    from pipeline.probes.built import BuiltCell


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

    collect_folder(project_of(options), options.folder, report)
    return 0


def do_plan(options: Options, report: Reporter) -> int:
    selection = selection_of(options, builder=None)
    newest = newest_release(selection.past)
    actions = selection.actions(options.release or newest or "(next)", options.until)
    if options.github:
        set_output("cells", jobs_json(jobs(selection.cells)))
    if options.json:
        print_json(actions, with_parts=options.explain)
    elif options.explain:
        print_keys(actions, selection.past, report)
    else:
        print_plan(actions, report)
    if not options.json:
        print_excluded(excluded_of(selection.project.matrix, options.cells), report)
    return 0


def do_release(options: Options, report: Reporter) -> int:
    return flow(options, report, until=options.until)


def do_stage(options: Options, report: Reporter) -> int:
    until: StageName = next(stage for stage in STAGES if stage == options.command)
    sealed = until in AFTER_THE_SEAL
    return flow(options, report, until=until, since=AFTER_THE_SEAL[0] if sealed else STAGES[0])


def do_verify(options: Options, report: Reporter) -> int:
    from pipeline.verifying import verify_image

    verify_image(
        options.image,
        key=options.key,
        unsigned=options.unsigned,
        cards=options.card,
        templates=project_of(options).templates,
        report=report,
    )
    return 0


def do_bisect(options: Options, report: Reporter) -> int:
    """Search one cell's newest built image; found is success, anything else says what is missing."""
    from pipeline.bisecting import Search, apply_exclusions, search_cell

    with _newest_image(options, report, "search in") as (served, stack, log):
        search = Search(
            stack=stack,
            level=options.level,
            budget_s=options.minutes * 60,
            width=options.parallel,
            gpus=options.gpus,
            restarts=options.restart or options.parallel > 1,
        )
        result, files = search_cell(served, search, log.say)
    report.say("\n".join([result.sentence, *(str(path) for path in files)]))
    if result.status == "found":
        if options.apply:
            apply_exclusions(result, served.cell, served.project.matrix_path)
        return 0
    kind = StageRefusedError if result.status == "no_operator" else InconclusiveError
    raise kind(result.sentence, where=f"bisect of {served.cell.id}", hint=_NEXT[result.status])


def do_operators(options: Options, report: Reporter) -> int:
    """Serve one cell's newest built image with every operator on and checked; a wrong one fails."""
    from pipeline.probes.cell_check import check_cell

    with _newest_image(options, report, "check") as (served, stack, log):
        found, path = check_cell(served, stack, log.say)
    report.say("\n".join([*found.table(), str(path)]))
    if not found.worst:
        return 0
    cell = served.cell
    raise StageRefusedError(
        f"{len(found.worst)} operators compute something else than the CPU",
        where=f"operators of {cell.id}",
        details="\n".join(found.sentences()),
        hint=f"nox -s bisect -- {cell.chip_id} {cell.model_id} tells which of them spoil the model",
    )


@contextmanager
def _newest_image(
    options: Options, report: Reporter, verb: str
) -> Iterator[tuple[BuiltCell, str, StageLog]]:
    """Of the one cell that is named; the stack that is meant, and the command's log."""
    from pipeline.bisecting import newest_image

    command = options.command
    selection = selection_of(options, builder=None)
    cell = _one_cell(selection.cells, verb, f"{command} nvidia smollm2")
    project = selection.project
    with report.stage(cell.id, command, project.bisect_folder(cell) / f"{command}.log") as log:
        served = newest_image(
            cell,
            selection.past[cell.id],
            project,
            project.target(options.target),
            lazy_engine(cleans=True),
            command=command,
        )
        yield served, options.stack or cell.chip.released, log


_NEXT: Mapping[str, str] = {
    "no_operator": "compare the stacks' arguments and variables; nox -s smoke says what a served stack answers",
    "nothing_fails": "a warning is searched for with --level warn; the paired gate sees what the pre-gate cannot",
    "not_confirmed": "the server answers differently when asked again; look for a race or memory that runs out",
    "budget_ended": "run it again: what was probed is not probed twice; --minutes gives it longer",
}


def do_gate(options: Options, report: Reporter) -> int:
    from pipeline.judging import judge_stored

    project = project_of(options)
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
        project_of(options).matrix.gate, draws=options.draws, seed=options.seed, report=report
    )
    return 0


def do_flageval(options: Options, report: Reporter) -> int:
    from pipeline.submitting import Evaluation, check_stack
    from pipeline.world.flageval import FlagEval

    project = project_of(options)
    cell = _one_cell(select(project.matrix, options.cells), "evaluate", "flageval nvidia step3")
    evaluation = Evaluation(
        cell=cell,
        stack=check_stack(cell, options.stack or cell.chip.released),
        file=project.flageval_file(cell),
        service=FlagEval.from_environment(),
        report=report,
    )
    match options.word:
        case "submit":
            evaluation.submit(options.url, layout=options.layout, tokenizer=options.tokenizer)
        case "progress":
            evaluation.progress(options.ids)
        case "result":
            evaluation.result(options.ids)
        case "compare":
            evaluation.compare(options.ids)
        case "stop":
            evaluation.stop(options.ids)
        case "resume":
            evaluation.resume(options.ids)
    return 0


def _one_cell(cells: Sequence[Cell], verb: str, example: str) -> Cell:
    if len(cells) != 1:
        named = ", ".join(cell.id for cell in cells)
        raise UsageError(
            f"name exactly one cell to {verb}, this names {named}", hint=f"for example: {example}"
        )
    return cells[0]


def do_login(options: Options, report: Reporter) -> int:
    """Log in to the registries of a target, with what the environment says."""
    target = project_of(options).target(options.target)
    prefixes = [target.registry, *([target.staging] if target.staging else [])]
    done = login(prefix.partition("/")[0] for prefix in prefixes)
    report.say(f"logged in to: {', '.join(done) or f'none, for {USER} is not set'}")
    return 0


def do_rollback(options: Options, report: Reporter) -> int:
    from pipeline.registry_commands import roll_back

    return roll_back(options, report)


def do_yank(options: Options, report: Reporter) -> int:
    from pipeline.registry_commands import yank_cells

    return yank_cells(options, report)


def do_gc(options: Options, report: Reporter) -> int:
    from pipeline.registry_commands import print_unnamed

    return print_unnamed(options, report)


def do_doctor(options: Options, report: Reporter) -> int:
    """Every check, each told as soon as it is known; 1 if anything is wrong."""
    from pipeline.doctor import checks

    if options.fix:
        ask_consent(options, "promote")
    project = project_of(options)
    target, found = project.target(options.target), []
    for check in checks(
        project.root,
        select(project.matrix, options.cells),
        target,
        lazy_engine(cleans=False),
        lambda: project.release_key(target),
        are_named=bool(options.cells),
        is_public=options.target != "local",
        mends=options.fix,
    ):
        finding = check.found()
        found.append(finding.state)
        report.say(f"{finding.state:7}  {check.name}: {finding.seen}")
        if finding.state != "ok" and finding.to_do:
            report.say(f"         to do: {'; '.join(finding.to_do.splitlines())}")
    counts = ", ".join(f"{found.count(state)} {state}" for state in ("ok", "wrong", "unknown"))
    report.say(f"{len(found)} checks: {counts}")
    return 1 if "wrong" in found else 0


COMMANDS: Mapping[str, Callable[[Options, Reporter], int]] = {
    "release": do_release,
    "plan": do_plan,
    "render": do_render,
    "page": do_page,
    "lock": do_lock,
    "login": do_login,
    "bisect": do_bisect,
    "operators": do_operators,
    "gate": do_gate,
    "simulate": do_simulate,
    "flageval": do_flageval,
    "bundle": do_bundle,
    "collect": do_collect,
    "rollback": do_rollback,
    "yank": do_yank,
    "gc": do_gc,
    "verify": do_verify,
    "doctor": do_doctor,
    "card": do_cards,
    "cards": do_cards,
    **{stage: do_stage for stage in STAGES if stage not in ("render", "card")},
}
