"""From a cell to what the measuring stages are told: launches, expectations, items. Thin glue, no decisions."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.canonical import canonical, sha256_bytes
from pipeline.cell import KERNELS, Cell
from pipeline.keys import key_of
from pipeline.logit_policy import PROFILES
from pipeline.parts import Inputs, row_parts, trace_parts
from pipeline.record import Stages
from pipeline.stages.smoke import Expected
from pipeline.suite import Suite
from pipeline.world.device_memory import LEAST_SHARE, CardShare
from pipeline.world.server import Launch

if TYPE_CHECKING:
    from pipeline.stages.accuracy import AccuracyTask
    from pipeline.stages.pregate import PreGateTask

# What turns the operators of a stack on and off; see DESIGN.md, section 4.
OPERATOR_SWITCH = (
    "worker_cls",
    "USE_FLAGGEMS",
    "FLAGRELEASE_OPERATORS",
    "FLAGRELEASE_OPERATORS_EVIDENCE",
    "VLLM_FL_FLAGOS_WHITELIST",
    "VLLM_FL_FLAGOS_BLACKLIST",
)


def launch(cell: Cell, stack: str, image: str, share: Path, kernels: Path | None = None) -> Launch:
    """The container of the card, with a name that parallel runs do not share and weights that cannot be written.

    Kernels are kept in the folder given, where the card's reader has a volume; without one they end with the container.
    """
    weights = Path(cell.model.weights.path or share / cell.model_id).resolve()
    kept = {str(kernels.resolve()): KERNELS} if kernels and cell.kernel_caches(stack) else {}
    return Launch(
        image=image,
        run=cell.run,
        name=f"flagrelease-{cell.chip_id}-{cell.model_id}-{stack}-{os.getpid()}",
        volumes={str(weights): f"{cell.weights_path}:ro", **kept},
        command=cell.serve_command(stack),
        log_path=cell.log_path(stack),
        port=cell.model.port,
        budget_s=cell.chip.start_budget_s,
        takes=card_share(cell, stack),
    )


def card_share(cell: Cell, stack: str) -> CardShare | None:
    """What vLLM asks for itself, only earlier and without naming who holds it."""
    if cell.chip.smi is None or cell.chip.smi.memory is None:
        return None
    asked = cell.serve_arguments(stack).get("gpu_memory_utilization", LEAST_SHARE)
    return CardShare(smi=cell.chip.smi, cards=tuple(range(cell.cards)), share=float(str(asked)))


def expected_of_smoke(cell: Cell, inputs: Inputs) -> Expected:
    locked = inputs.files.get(f"images/{cell.chip_id}/requirements.lock", b"").decode()
    pairs = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", locked, flags=re.MULTILINE)
    return Expected(
        packages={re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs},
        smi=cell.chip.smi,
        cards=cell.cards,
        prompt=cell.model.smoke.prompt,
        answer=cell.model.smoke.expect,
        tokens_per_s_floor=cell.model.smoke.tokens_per_s_floor,
    )


def accuracy_task(
    cell: Cell, inputs: Inputs, suite: Suite, *, stages: Stages, folder: Path
) -> AccuracyTask:
    from pipeline.stages.accuracy import AccuracyTask  # imports scipy

    return AccuracyTask(
        key=key_of(row_parts(cell, inputs, stages)),
        reference=cell.chip.reference,
        candidate=cell.chip.released,
        items=suite.items,
        data=suite.data,
        imported=suite.imported,
        gate=cell.gate,
        conditions={
            stack: conditions(cell, stack, stages)
            for stack in (cell.chip.reference, cell.chip.released)
        },
        items_file=folder / "items.jsonl",
        operators={
            stack: asked
            for stack in (cell.chip.reference, cell.chip.released)
            if (asked := cell.asked_operators(stack))
        },
    )


def pregate_task(
    cell: Cell,
    inputs: Inputs,
    prompts: tuple[str, ...],
    *,
    stages: Stages,
    task: AccuracyTask,
    folder: Path,
) -> PreGateTask:
    from pipeline.stages.pregate import PreGateTask  # imports numpy

    asked = {
        "prompts": sha256_bytes(canonical(list(prompts))),
        "top k": str(cell.gate.logits.top_k),
    }
    return PreGateTask(
        key=key_of({**trace_parts(cell, inputs, stages), **asked}),
        reference=task.reference,
        candidate=task.candidate,
        profile=PROFILES["release"],
        limits=cell.gate.logits,
        prompts=prompts,
        runs_after_warning=max(2, cell.gate.looks[-1]),
        folder=folder,
    )


def conditions(cell: Cell, stack: str, stages: Stages) -> dict[str, str]:
    """What the compared stacks must have in common: all but the operator switch and what `differs` names."""
    caches = {name for other in cell.stacks for name in cell.kernel_caches(other)}
    may_differ = {*cell.chip.differs, *OPERATOR_SWITCH, *caches}
    settings = {**cell.serve_arguments(stack), **cell.environment(stack)}
    shared = {name: str(value) for name, value in settings.items() if name not in may_differ}
    return {
        **shared,
        "image": stages.build.result.model.config_digest
        if stages.build and stages.build.result
        else "",
        "weights": stages.weights.result.sha256 if stages.weights and stages.weights.result else "",
    }
