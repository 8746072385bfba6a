"""How the rehearsal of a card's commands ends: run where they can be, looked at where they cannot."""

from __future__ import annotations

import os

from pipeline.cards.facts import measured
from pipeline.cards.guide import image_reference
from pipeline.cell_release import CellRelease, Ended
from pipeline.reporter import StageLog
from pipeline.stages.card import guide_blocks
from pipeline.stages.rehearse import Staged, checked, failure, refuse_faulty_blocks, rehearse
from pipeline.stages.weights import check_whole, weights_folder
from pipeline.world.reader import Reader

# For downloads and answers, beside the start of the server.
REST_S = 900.0


def rehearse_commands(run: CellRelease, log: StageLog) -> Ended:
    """The blocks of the card that the record allows so far."""
    blocks, cell = guide_blocks(run.record, run.project.templates), run.cell
    refuse_faulty_blocks(blocks, cell.id)
    if node := run.project.node:
        why = f"the node {node} has no network, so the machine of a reader cannot be made there"
        return "not_applicable", checked(blocks, why), ""
    check_whole(run.project.share, cell, run.weights)
    result = rehearse(
        blocks,
        _staged(run),
        Reader(engine=run.world.engine(), arch=cell.chip.arch, log=log.path, say=log.progress),
        name=f"{cell.chip_id}-{cell.model_id}-{os.getpid()}",
        limit_s=cell.chip.start_budget_s + REST_S,
    )
    for block in result.blocks:
        first = block.text.partition("\n")[0]
        log.say(f"{block.status:8} {block.seconds:5.1f} s  {block.section}: {first}")
        log.line(block.output)
    wrong = failure(result)
    return "failed" if wrong else "passed", result, wrong


def _staged(run: CellRelease) -> Staged:
    share = run.project.share
    return Staged(
        about=run.record.about,
        root=run.project.root.resolve(),
        printed_image=image_reference(measured(run.record)),
        image=run.image,
        registry=run.names.staging_host,
        weights=weights_folder(share, run.cell).resolve(),
        share=run.project.rehearsal_folder(run.cell).resolve(),
    )
