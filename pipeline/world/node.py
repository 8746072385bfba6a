"""The machine that measures: its class enters the keys of what is measured, because other chips give other numbers."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from pipeline.chip import Chip
from pipeline.errors import PipelineError
from pipeline.world.command import run


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
        listed = run((smi.list or smi.command).split(), doing="listing the cards", hint="").output
    except PipelineError:
        return f"{host}, {smi.command} fails"
    return ", ".join(card_names(chip, listed))


def card_names(chip: Chip, listed: str) -> tuple[str, ...]:
    """The names of cards in what the chip's tool printed."""
    pattern = chip.smi.name if chip.smi and chip.smi.name else f"({re.escape(chip.accelerator)})"
    return tuple(found.strip() for found in re.findall(pattern, listed))
