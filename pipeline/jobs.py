"""Cells as jobs of GitHub Actions, and on which self-hosted runner each. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from pipeline.cell import Cell
from pipeline.errors import UsageError
from pipeline.results import Frozen

MOST_JOBS = 256  # of one matrix: https://docs.github.com/en/actions/reference/limits
MOST_BYTES = 1 << 20  # of a job's outputs


class Job(Frozen):
    chip: str
    model: str
    runner: str  # a label that one machine has; its jobs run one after another


def jobs(cells: Sequence[Cell]) -> tuple[Job, ...]:
    """A job for each cell; those of a chip are dealt out to its runners in turn, the same each time.

    One that has nothing to do hands over its record, which promotion and cards need.
    """
    turns = Counter[str]()
    found = []
    for cell in cells:
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
