"""From a cell to what the measuring stages are told: launches, expectations, items. Thin glue, no decisions."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cell import Cell
from pipeline.parts import Inputs
from pipeline.stages.smoke import Expected
from pipeline.suite import Suite
from pipeline.world.server import Launch

if TYPE_CHECKING:
    from pipeline.stages.accuracy import AccuracyTask


def launch(cell: Cell, stack: str, image: str, share: Path) -> Launch:
    """The container of the card, with a name that parallel runs do not share and weights that cannot be written."""
    weights = Path(cell.model.weights.path or share / cell.model_id).resolve()
    return Launch(
        image=image,
        run=cell.chip.run,
        name=f"flagrelease-{cell.chip_id}-{cell.model_id}-{stack}-{os.getpid()}",
        volumes={str(weights): f"{cell.weights_path}:ro"},
        command=cell.serve_command(stack),
        log_path=cell.log_path(stack),
        port=cell.model.port,
        budget_s=cell.chip.start_budget_s,
    )


def expected_of_smoke(cell: Cell, inputs: Inputs) -> Expected:
    locked = inputs.files.get(f"images/{cell.chip_id}/requirements.lock", b"").decode()
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", locked, flags=re.MULTILINE)
    return Expected(
        packages={re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs},
        device_probe=cell.chip.smi,
        prompt=cell.model.smoke.prompt,
        answer=cell.model.smoke.expect,
        tokens_per_s_floor=cell.model.smoke.tokens_per_s_floor,
    )


def accuracy_task(cell: Cell, suite: Suite, *, key: str, folder: Path) -> AccuracyTask:
    from pipeline.stages.accuracy import AccuracyTask  # imports scipy

    return AccuracyTask(
        key=key,
        reference=cell.chip.reference,
        candidate=cell.chip.released,
        items=suite.items,
        data=suite.data,
        margins=dict.fromkeys(suite.items, cell.gate.margin),
        alpha=cell.gate.alpha,
        power_margins=cell.gate.power_margins,
        concurrency=cell.gate.concurrency,
        seed=cell.gate.seed,
        items_file=folder / "items.jsonl",
    )
