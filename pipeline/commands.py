"""What each command does, with everything outside passed on to the flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.card_commands import do_cards
from pipeline.cells import excluded_of, one_cell, select
from pipeline.flow import ask_consent, flow, lazy_engine
from pipeline.github import set_output
from pipeline.jobs import jobs, jobs_json
from pipeline.naming import newest_release
from pipeline.operator_commands import do_bisect, do_operators
from pipeline.options import Options
from pipeline.overview import print_excluded, print_json, print_keys, print_plan
from pipeline.project import Project
from pipeline.record import AFTER_THE_SEAL, STAGES, StageName
from pipeline.render_commands import do_lock, do_page, do_render
from pipeline.reporter import Reporter
from pipeline.selection import project_of, selection_of
from pipeline.world import git
from pipeline.world.login import USER, login


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
    cell = one_cell(select(project.matrix, options.cells), "evaluate", "flageval nvidia step3")
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
