"""The machine that measures: its class enters the keys of what is measured, because other chips give other numbers."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError
from pipeline.world.command import run

if TYPE_CHECKING:
    from pipeline.chip import Chip, Smi


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def node_class(chip: Chip) -> str:
    """Processor and cores; with a chip's tool, the cards that it names instead."""
    host, smi = f"{processor()} x{os.cpu_count()}", chip.smi
    if smi is None:
        return host
    if shutil.which(smi.command.split()[0]) is None:
        return f"{host}, no {smi.command}"
    try:
        return ", ".join(cards(chip, smi))
    except PipelineError:
        return f"{host}, {smi.command} fails"


def cards(chip: Chip, smi: Smi) -> tuple[str, ...]:
    """The names of this machine's cards, by the chip's tool. Raises CommandError, or WorldError without the tool."""
    words = (smi.list or smi.command).split()
    hint = f"a release of {chip.title.en} needs a machine with its driver and {words[0]}"
    return card_names(chip, run(words, doing="listing the cards", hint=hint, timeout_s=60).output)


def card_names(chip: Chip, listed: str) -> tuple[str, ...]:
    """The names of cards in what the chip's tool printed."""
    pattern = chip.smi.name if chip.smi and chip.smi.name else f"({re.escape(chip.accelerator)})"
    return tuple(found.strip() for found in re.findall(pattern, listed))


def driver_in(printed: str) -> str | None:
    """Its version, in what the chip's tool printed."""
    found = re.search(r"(?i)driver version:?\s*([\w.]+)", printed)
    return found[1] if found else None
