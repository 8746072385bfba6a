"""What was asked for, as the record keeps it: the part of a card that no stage measures. Pure."""

from __future__ import annotations

from pipeline.cell import Cell
from pipeline.matrix_values import Text
from pipeline.names import Names
from pipeline.parts import CONVERTER
from pipeline.record import About, ReleaseKey, StackAbout
from pipeline.waiver import Waiver


def about(
    cell: Cell,
    names: Names,
    release_key: ReleaseKey | None = None,
    waiver: Waiver | None = None,
    target: str | None = None,
) -> About:
    return About(
        title=cell.model.title,
        modality=cell.model.modality,
        license=cell.model.license,
        base_model=cell.model.base_model,
        languages=tuple(cell.model.languages),
        vendor=cell.project.vendor,
        project_source=cell.project.source,
        chip_title=cell.chip.title,
        accelerator=cell.chip.accelerator,
        has_flaggems="flag-gems" in cell.chip.packages,
        reference=cell.chip.reference,
        released=cell.chip.released,
        stacks={stack: _stack(cell, stack) for stack in cell.stacks},
        served_name=cell.served_name,
        port=cell.model.port,
        prompt=cell.model.smoke.prompt,
        weights=cell.model.weights,
        weights_path=cell.weights_path,
        converter=CONVERTER,
        run=cell.user_run,
        repository=f"{names.host}/{names.public}",
        hub_name=names.hub,
        benchmarks=cell.benchmarks,
        gate=cell.gate,
        size=cell.model.size,
        chat=cell.model.chat,
        sdk=cell.chip.sdk,
        driver=cell.chip.driver,
        cards=cell.cards,
        known_problems=cell.known_problems,
        skipped_operators=cell.chip.skipped_operators,
        target=target,
        is_attested=cell.chip.base.node is None,
        release_key=release_key,
        image_alias=names.alias,
        waiver=waiver,
    )


def _stack(cell: Cell, stack: str) -> StackAbout:
    title = Text(en=cell.stack_title(stack, "en"), zh=cell.stack_title(stack, "zh"))
    compiler = cell.chip.stacks[stack].compiler
    return StackAbout(
        title=title,
        arguments=cell.serve_arguments(stack),
        environment=cell.environment(stack),
        excluded_operators=cell.excluded_operators(stack),
        command=cell.serve_command(stack),
        log_path=cell.log_path(stack),
        compiler=cell.chip.compilers[compiler] if compiler else None,
    )
