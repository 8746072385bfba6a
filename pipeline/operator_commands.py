"""bisect and operators: which operators of a cell's newest built image are at fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.cells import one_cell
from pipeline.errors import InconclusiveError, StageRefusedError
from pipeline.flow import lazy_engine
from pipeline.options import Options
from pipeline.reporter import Reporter, StageLog
from pipeline.selection import selection_of

if TYPE_CHECKING:
    from pipeline.probes.built import BuiltCell

_NEXT: Mapping[str, str] = {
    "no_operator": "compare the stacks' arguments and variables; nox -s smoke says what a served stack answers",
    "nothing_fails": "a warning is searched for with --level warn; the paired gate sees what the pre-gate cannot",
    "not_confirmed": "the server answers differently when asked again; look for a race or memory that runs out",
    "budget_ended": "run it again: what was probed is not probed twice; --minutes gives it longer",
}


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
    cell = one_cell(selection.cells, verb, f"{command} nvidia smollm2")
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
