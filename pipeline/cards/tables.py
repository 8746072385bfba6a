"""What a card says of speed, settings, stages and smoke test, as it prints it. Pure."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.cards.blocks import Block, is_command
from pipeline.cards.facts import MEASURED, NEEDED, Measured
from pipeline.cards.numbers import cell_text, seconds
from pipeline.matrix_values import Text
from pipeline.record import Record, StackAbout, StageName
from pipeline.rehearsal import Substitution
from pipeline.results import LoadResult
from pipeline.smoke_result import Sight

# Options of the server that change what a client sees, and that no stage asks for.
CLIENT_OPTIONS = ("reasoning_parser", "tool_call_parser")


@dataclass(frozen=True, kw_only=True)
class LoadRow:
    """Both stacks under one load: output tokens per second, times in milliseconds."""

    concurrency: int
    requests: int
    reference: str
    released: str
    ratio: str
    ttft_reference: str
    ttft_released: str
    tpot_reference: str
    tpot_released: str


def load_rows(measured: Measured) -> tuple[LoadRow, ...]:
    result, about = measured.performance, measured.about
    loads = {(load.stack, load.concurrency): load for load in result.loads}
    return tuple(
        _load_row(
            loads[about.reference, ratio.concurrency],
            loads[about.released, ratio.concurrency],
            ratio.ratio,
        )
        for ratio in result.ratios
    )


def _load_row(reference: LoadResult, released: LoadResult, ratio: float) -> LoadRow:
    return LoadRow(
        concurrency=released.concurrency,
        requests=released.requests,
        reference=f"{reference.output_tokens_per_s:.1f}",
        released=f"{released.output_tokens_per_s:.1f}",
        ratio=f"{ratio:.3f}",
        ttft_reference=f"{reference.mean_ttft_ms:.0f}",
        ttft_released=f"{released.mean_ttft_ms:.0f}",
        tpot_reference=f"{reference.mean_tpot_ms:.1f}",
        tpot_released=f"{released.mean_tpot_ms:.1f}",
    )


@dataclass(frozen=True, kw_only=True)
class OtherLoadRow:
    """A load run of a stack that is not compared."""

    title: Text
    concurrency: int
    speed: str
    ttft: str
    tpot: str


def other_load_rows(measured: Measured) -> tuple[OtherLoadRow, ...]:
    about = measured.about
    return tuple(
        OtherLoadRow(
            title=about.stacks[load.stack].title,
            concurrency=load.concurrency,
            speed=f"{load.output_tokens_per_s:.1f}",
            ttft=f"{load.mean_ttft_ms:.0f}",
            tpot=f"{load.mean_tpot_ms:.1f}",
        )
        for load in measured.performance.loads
        if load.stack not in (about.reference, about.released)
    )


@dataclass(frozen=True, kw_only=True)
class StartRow:
    """One start of a stack for a stage; seconds from `docker run`."""

    stack: str
    kept: bool  # the kernels of an earlier start
    ready: str
    answered: str
    phases: str


def start_rows(measured: Measured) -> tuple[StartRow, ...]:
    """Good ones, in the order of the stages; a record of earlier days has none."""
    results = (measured.smoke, measured.accuracy, measured.performance)
    starts = (start for result in results if result for start in result.starts)
    return tuple(
        StartRow(
            stack=start.stack,
            kept=start.kernels == "kept",
            ready=seconds(start.ready_seconds),
            answered=seconds(start.answered_seconds),
            phases=cell_text(", ".join(f"{name} {seconds(s)}" for name, s in start.phases.items())),
        )
        for start in starts
        if start.is_good
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One argument or variable in which the stacks differ; None where a stack does not set it."""

    name: str
    reference: str | None
    released: str | None


def differences(measured: Measured) -> tuple[Difference, ...]:
    about = measured.about
    left, right = (_settings(about.stacks[name]) for name in (about.reference, about.released))
    return tuple(
        Difference(name=name, reference=left.get(name), released=right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    )


def _settings(stack: StackAbout) -> dict[str, str]:
    variables = {name: str(value) for name, value in stack.environment.items()}
    return variables | {name: cell_text(value) for name, value in stack.arguments.items()}


@dataclass(frozen=True, kw_only=True)
class StageRow:
    name: str
    started: str
    seconds: str
    node: str
    reused_from: str | None


def stage_rows(record: Record) -> tuple[StageRow, ...]:
    names: tuple[StageName, ...] = (*NEEDED, "rehearse")
    found = ((name, record.stages.get(name)) for name in names)
    return tuple(
        StageRow(
            name=name,
            started=stage.started[:19].replace("T", " "),
            seconds=seconds(stage.seconds),
            node=cell_text(stage.node),
            reused_from=stage.reused_from,
        )
        for name, stage in found
        if stage
    )


def nodes(record: Record) -> tuple[str, ...]:
    """Where the image was served to be measured, each node once."""
    found = (record.stages.get(name) for name in MEASURED)
    return tuple(dict.fromkeys(stage.node for stage in found if stage))


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Of the commands on the card."""

    state: Literal["rehearsed", "changed", "checked", "none"]
    blocks: int
    replaced: int  # by a substitution
    since: str  # day of the rehearsal
    changed: tuple[int, ...]  # places of the blocks of the card that are not as they ran
    machine: str
    why_not: str  # of those that were only checked
    substitutions: tuple[Substitution, ...]


def rehearsal(record: Record, printed: Sequence[Block] | None = None) -> Rehearsal:
    """`printed`: the blocks of the card, where they are no longer the rehearsed ones."""
    stage = record.stages.rehearse
    result = stage.result if stage else None
    known = ("passed",) if printed else ("passed", "not_applicable")
    if stage is None or result is None or stage.status not in known:
        return Rehearsal(
            state="none",
            blocks=0,
            replaced=0,
            since="",
            changed=(),
            machine="",
            why_not="",
            substitutions=(),
        )
    ran = {(block.language, block.text) for block in result.blocks}
    blocks = [one for one in enumerate(printed or ()) if is_command(one[1])]
    done: Literal["rehearsed", "checked"] = "rehearsed" if stage.status == "passed" else "checked"
    return Rehearsal(
        state="changed" if printed else done,
        blocks=len(blocks) if printed else len(result.blocks),
        replaced=sum(block.status == "replaced" for block in result.blocks),
        since=stage.started[:10],
        changed=tuple(place for place, one in blocks if (one.language, one.text) not in ran),
        machine=result.machine,
        why_not=result.why_not,
        substitutions=result.substitutions,
    )


def untested_options(measured: Measured) -> tuple[str, ...]:
    arguments = measured.about.stacks[measured.about.released].arguments
    return tuple(name for name in CLIENT_OPTIONS if name in arguments)


def smoke_answer(measured: Measured) -> str:
    """What the server answered to the prompt of the smoke test, in one line."""
    seen = (check.seen for check in measured.smoke.checks if check.name == "completion")
    text = next(seen, "")
    return cell_text(_unquoted(text)).replace("`", "'")


def sights(measured: Measured) -> tuple[Sight, ...]:
    """What the server answered of pictures, each in one line."""
    return tuple(
        Sight(colour=one.colour, answer=cell_text(one.answer).replace("`", "'"))
        for one in measured.smoke.sights
    )


def _unquoted(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError):
        return text
