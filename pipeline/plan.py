"""plan: for each cell and stage run or reuse, and why. Pure: no Docker, no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from pipeline.cell import Cell
from pipeline.keys import UNKNOWN, Parts, changes, key_of
from pipeline.parts import Inputs, parts_of
from pipeline.record import STAGES, Record, StageName, StageRecord, Stages, Status
from pipeline.results import Frozen

REUSABLE: tuple[Status, ...] = ("passed", "not_applicable")

ANSWERED: tuple[Status, ...] = (
    "inconclusive",
)  # an accuracy that may be waived is not asked again


class Action(Frozen):
    cell: str
    stage: StageName
    kind: Literal["run", "reuse"]
    reasons: tuple[str, ...]
    key: str | None  # None: depends on a stage that has yet to run
    source: str | None = None  # the release whose work is reused
    # What the key is made of; "?" is a result that an earlier stage has yet to make.
    parts: Parts = Field(default={}, exclude=True, repr=False)


def stages_until(last: StageName) -> tuple[StageName, ...]:
    return STAGES[: STAGES.index(last) + 1]


def plan(
    cells: Sequence[Cell],
    inputs: Mapping[str, Inputs],
    past: Mapping[str, Sequence[Record]],
    *,
    release: str,
    until: StageName,
) -> tuple[Action, ...]:
    """Ordered actions. `inputs` and `past` (records, newest first) are by cell id."""
    return tuple(
        action
        for cell in cells
        for action in _plan_cell(cell, inputs[cell.id], past.get(cell.id, ()), release, until)
    )


def decide(
    stage: StageName,
    cell: str,
    parts: Parts,
    past: Sequence[Record],
    reusable: Sequence[Status] = REUSABLE,
) -> Action:
    """Reuse when any record of the cell has finished this stage under the same key; otherwise run, and say why."""
    key = None if UNKNOWN in parts.values() else key_of(parts)
    ran = [(record, stage_record) for record in past if (stage_record := record.stages.get(stage))]
    same = [(record, stage_record) for record, stage_record in ran if stage_record.key == key]
    for record, stage_record in same[:1]:  # a later failure is never overruled by an older pass
        if stage_record.status in reusable:
            return Action(
                cell=cell,
                stage=stage,
                kind="reuse",
                reasons=("nothing changed",),
                key=key,
                source=record.release,
                parts=parts,
            )
    if not ran:
        return Action(
            cell=cell, stage=stage, kind="run", reasons=("never run",), key=key, parts=parts
        )
    record, newest = ran[0]
    reasons = changes(newest.parts, parts) or (f"{newest.status} in {record.release}",)
    return Action(cell=cell, stage=stage, kind="run", reasons=reasons, key=key, parts=parts)


def act(
    stage: StageName,
    cell: Cell,
    inputs: Inputs,
    done: Stages,
    past: Sequence[Record],
    release: str,
) -> Action:
    """What to do about one stage of a cell, given the stages before it."""
    is_waived = stage == "accuracy" and inputs.about.waiver
    reusable = (*REUSABLE, *ANSWERED) if is_waived else REUSABLE
    parts = parts_of(stage, cell, inputs, done, release)
    action = decide(stage, cell.id, parts, past, reusable)
    if stage == "render" and action.kind == "reuse" and inputs.edited:
        edited = tuple(f"{path} differs from its render" for path in inputs.edited)
        return action.model_copy(update={"kind": "run", "reasons": edited})
    return action


def reused(action: Action, past: Sequence[Record]) -> StageRecord[Any]:
    """The stage record that an action of kind `reuse` points to."""
    for record in past:
        found = record.stages.get(action.stage)
        if record.release == action.source and found and found.key == action.key:
            return found
    raise LookupError(f"{action.cell} {action.stage}: no record of {action.source}")


def _plan_cell(
    cell: Cell, inputs: Inputs, past: Sequence[Record], release: str, until: StageName
) -> list[Action]:
    done, actions = Stages(), []
    for stage in stages_until(until):
        action = act(stage, cell, inputs, done, past, release)
        if action.kind == "reuse":
            done = done.model_copy(update={stage: reused(action, past)})
        actions.append(action)
    return actions
