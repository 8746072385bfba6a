"""accuracy as a step of the flow: the suite, the pre-gate, the items, and what is known already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.accuracy_result import ItemRow
from pipeline.cell_release import CellRelease, Ended
from pipeline.gate.operators import operator_faults
from pipeline.next_step import next_step
from pipeline.operator_evidence import Look, StackOperators, stack_operators
from pipeline.record import Status
from pipeline.reporter import StageLog
from pipeline.rows import stored_rows
from pipeline.serve import accuracy_task, pregate_task
from pipeline.suite import Places, pregate_prompts, prepare_suite
from pipeline.world.endpoint import Endpoint
from pipeline.world.operators import look_at_operators
from pipeline.world.sandbox import Sandbox
from pipeline.world.server import Served

ENDED: Mapping[str, Status] = {
    "pass": "passed",
    "fail": "failed",
    "inconclusive": "inconclusive",
    "invalid": "invalid",
}


def accuracy(run: CellRelease, log: StageLog) -> Ended:
    up: dict[str, Served] = {}

    @contextmanager
    def served(stack: str) -> Iterator[Endpoint]:
        with run.serve(stack, log) as server:
            up[stack] = server
            yield Endpoint(base_url=server.base_url, model=run.cell.served_name)

    def look_at(stack: str) -> Look:
        return look_at_operators(
            up[stack].container, run.cell.evidence_folders, wait=stack in task.operators
        )

    def ran_as_asked(stack: str) -> bool:
        """An answer that a dying engine gave is not kept for the next run."""
        seen = stack_operators(task.operators.get(stack), (look_at(stack),))
        return up[stack].is_healthy() and not any(operator_faults({stack: seen}, (stack, stack)))

    # numpy takes a while to import, and most runs reuse their verdict.
    from pipeline.stages.accuracy import measure_accuracy, without_items
    from pipeline.stages.pregate import PreGate, PreGateRefusedError

    suite = prepare_suite(
        run.cell,
        run.inputs,
        Places(share=run.project.share, environments=run.project.environments, folder=run.folder),
        stages=run.record.stages,
        run_programs=Sandbox(engine=run.world.engine(), image=run.image),
        say=log.say,
    )
    task = accuracy_task(run.cell, run.inputs, suite, stages=run.record.stages, folder=run.folder)
    known = None if run.is_forced else judged_before(run, task.asking.rows_key)
    if known:
        log.say(f"the answers of {known.release} are judged again where they are whole")

    def progress(name: str, done: int, of: int) -> None:
        log.progress(f"{name} {done}/{of}")

    pregate = PreGate(
        pregate_task(
            run.cell,
            run.inputs,
            pregate_prompts(run.cell, run.inputs.lock, run.project.share / "download", log.say),
            stages=run.record.stages,
            task=task,
            folder=run.project.traces / run.cell.id,
        ),
        served,
        progress,
        look_at=look_at,
        keeps=ran_as_asked,
        fresh=run.is_forced,
    )
    try:
        result = measure_accuracy(
            task,
            served,
            progress,
            evaluator=suite.evaluator,
            known=known.rows if known else (),
            known_seconds=known.seconds if known else None,
            known_operators=known.operators if known else None,
            on_served=pregate.on_served,
            look_at=look_at,
            least_runs=pregate.least_runs,
        )
        result = result.model_copy(update={"logits": pregate.verdict()})
    except PreGateRefusedError as refused:
        result = without_items(task, refused.verdict, refused.looks)
    result = result.model_copy(update={"starts": tuple(run.starts)})
    logits = (f"pre-gate: {result.logits.sentence}",) if result.logits else ()
    said = (*logits, *result.verdict.warnings, result.verdict.sentence, next_step(run.cell, result))
    for line in filter(None, said):
        log.say(line)
    ended = ENDED[result.verdict.status]
    return ended, result, "" if ended == "passed" else result.verdict.sentence


@dataclass(frozen=True, kw_only=True)
class Known:
    """Rows that the same image, weights and questions gave in an earlier run."""

    release: str
    rows: tuple[ItemRow, ...]
    seconds: Mapping[str, float]  # by stack
    operators: Mapping[str, StackOperators]  # by stack


def judged_before(run: CellRelease, rows_key: str) -> Known | None:
    """Answers of a stack that did not run with its operators are those of another stack, and asked again."""
    stacks = (run.cell.chip.reference, run.cell.chip.released)
    for past in run.past:
        found = past.stages.accuracy and past.stages.accuracy.result
        if found and found.rows_key == rows_key and found.operators is not None:
            if any(operator_faults(found.operators, stacks)):
                continue
            folder = run.project.store.folder(past.release, past.chip, past.model)
            if (folder / found.items_file).exists():
                rows = stored_rows(folder, found)
                return Known(
                    release=past.release,
                    rows=rows,
                    seconds=found.stack_seconds,
                    operators=found.operators,
                )
    return None
