"""The operators of a released stack beside the CPU: a check of every smoke test, and what a refusal says of them."""

from __future__ import annotations

from pipeline.cell_release import CellRelease
from pipeline.errors import PipelineError, StageRefusedError
from pipeline.probes.built import BuiltCell
from pipeline.probes.cell_check import check_cell, known_check
from pipeline.reporter import StageLog
from pipeline.smoke_result import SmokeResult
from pipeline.stages.smoke import Checks, Outcome
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
    checks, found = Checks(log.progress), list[OperatorCheck]()
    checks.run(NAME, lambda: _compared(run, found, log))
    return result.model_copy(
        update={
            "checks": (*result.checks, *checks.done),
            "operators": tuple(row for one in found for row in one.rows()),
            "wrong_operators": tuple(
                line for one in found if one.worst for line in one.sentences()
            ),
        }
    )


def _compared(run: CellRelease, found: list[OperatorCheck], log: StageLog) -> Outcome:
    try:
        found.append(_check(run, log))
    except StageRefusedError as error:
        return False, f"{error.message}: {error.details}"
    (one,) = found
    for line in one.table():
        log.line(line)
    wrong = (operator.sentence(name) for name, operator in one.worst)
    seen = "; ".join(filter(None, (one.summary, *wrong, one.refused)))
    return not one.worst and not one.refused, seen


def wrong_operators(run: CellRelease, log: StageLog) -> tuple[str, ...]:
    """What a refused stack computes wrong; none where it has no library, or cannot be checked."""
    stack = run.cell.chip.released
    if run.cell.asked_operators(stack) is None:
        return ()
    try:
        return (known_check(_built(run), stack) or _check(run, log)).sentences()
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
