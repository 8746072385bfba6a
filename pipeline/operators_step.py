"""The operators of a released stack beside the CPU: a check of every smoke test, and what a refusal says of them."""

from __future__ import annotations

import time

from pipeline.cell_release import CellRelease
from pipeline.errors import PipelineError, StageRefusedError
from pipeline.probes.built import BuiltCell
from pipeline.probes.cell_check import check_cell, known_check
from pipeline.reporter import StageLog
from pipeline.smoke_result import Check, SmokeResult
from pipeline.world.operator_check import OperatorCheck

NAME = "operators beside the CPU"


def with_operators(run: CellRelease, result: SmokeResult, log: StageLog) -> SmokeResult:
    """The smoke test with one more check where all others passed, with what is wrong where one failed.

    Of a stack with a library alone. Raises WorldError when the machine is why its server died.
    """
    switch = run.cell.chip.stacks[run.cell.chip.released].operators
    if switch is None:
        return result
    if not all(check.passed for check in result.checks):
        return result.model_copy(update={"wrong_operators": wrong_operators(run, log)})
    if switch.unchecked:
        log.say(f"{NAME}: not compared: {switch.unchecked}")
        return result.model_copy(update={"operators_unchecked": switch.unchecked})
    log.progress(NAME)
    started = time.monotonic()
    try:
        found = _check(run, log)
    except StageRefusedError as error:
        passed, seen, compared = False, f"{error.message}: {error.details}; {error.hint}", {}
    else:
        for line in found.table():
            log.line(line)
        passed, seen = found.is_whole and not found.worst, _seen(run, found)
        compared = {"operators": found.rows(), "operators_outside": found.outside}
    seconds = round(time.monotonic() - started, 2)
    check = Check(name=NAME, passed=passed, seen=seen, seconds=seconds)
    return result.model_copy(update={"checks": (*result.checks, check), **compared})


def _seen(run: CellRelease, found: OperatorCheck) -> str:
    seen = [found.summary, *(operator.sentence(name) for name, operator in found.worst)]
    cell = run.cell
    if found.worst:
        report = run.project.operators_file(cell).relative_to(run.project.root)
        bisect = f"nox -s bisect -- {cell.chip_id} {cell.model_id}"
        seen.append(f"{report} has the calls; {bisect} tells what spoils the model")
        seen.append("leave it out with operators.exclude, or say why with operators.unchecked")
    elif not found.is_whole:
        seen.append(found.refused or "none of them while a request was served")
        seen.append(
            "say with operators.unchecked why this library cannot be compared, if it cannot"
        )
    return "; ".join(seen)


def wrong_operators(run: CellRelease, log: StageLog) -> tuple[str, ...]:
    """What a refused stack computes wrong; none where it has no library, or cannot be checked."""
    stack = run.cell.chip.released
    asked = run.cell.asked_operators(stack)
    if asked is None:
        return ()
    try:
        return (known_check(_built(run), stack, asked) or _check(run, log)).sentences()
    except PipelineError as error:
        log.say(f"the operators could not be checked: {error}")
        return ()


def _check(run: CellRelease, log: StageLog) -> OperatorCheck:
    """The released stack once more, with exactly its operators and what it has compiled so far."""
    stack = run.cell.chip.released
    asked, kernels = run.cell.asked_operators(stack), run.kernels(stack)
    return check_cell(_built(run), stack, log.say, asked, kernels)[0]


def _built(run: CellRelease) -> BuiltCell:
    return BuiltCell(
        cell=run.cell,
        image=run.image,
        config_digest=run.built.model.config_digest,
        weights_sha256=run.weights.sha256,
        project=run.project,
        engine=run.world.engine(),
    )
