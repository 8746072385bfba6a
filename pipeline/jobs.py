"""The cells of a plan as jobs of GitHub Actions: which cells, and on which self-hosted runner each. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from pipeline.cell import Cell
from pipeline.errors import UsageError
from pipeline.plan import Action
from pipeline.results import Frozen

MOST_JOBS = 256  # of one matrix: https://docs.github.com/en/actions/reference/limits
MOST_BYTES = 1 << 20  # of a job's outputs


class Job(Frozen):
    chip: str
    model: str
    runner: str  # a label that one machine has; its jobs run one after another


def jobs(actions: Iterable[Action], cells: Sequence[Cell]) -> tuple[Job, ...]:
    """A job for each cell that has anything to do; those of a chip are dealt out to its runners in turn."""
    busy = {action.cell for action in actions if action.kind == "run"}
    turns = Counter[str]()
    found = []
    for cell in cells:
        if cell.id in busy:
            runners = cell.chip.runners or [cell.chip_id]
            runner = runners[turns[cell.chip_id] % len(runners)]
            turns[cell.chip_id] += 1
            found.append(Job(chip=cell.chip_id, model=cell.model_id, runner=runner))
    return tuple(found)


def jobs_json(found: Sequence[Job]) -> str:
    """`strategy.matrix` of a workflow, on one line. Raises UsageError when GitHub would not take it."""
    text = json.dumps({"include": [job.model_dump() for job in found]}, separators=(",", ":"))
    if len(found) > MOST_JOBS or len(text.encode()) > MOST_BYTES:
        raise UsageError(
            f"{len(found)} cells in {len(text.encode())} bytes are more than one workflow takes: "
            f"{MOST_JOBS} jobs, {MOST_BYTES} bytes",
            hint="release them in parts, by chip for instance: 'nvidia/*'",
        )
    return text
