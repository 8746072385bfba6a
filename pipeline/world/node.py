"""The machine that measures: its class enters the keys of what is measured, because other chips give other numbers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.world.command import run


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown processor"


def node_class(smi: str | None) -> str:
    """Processor and cores; with a chip's tool, the chips that it lists instead."""
    host = f"{processor()} x{os.cpu_count()}"
    if smi is None:
        return host
    if shutil.which(smi.split()[0]) is None:
        return f"{host}, no {smi}"
    try:
        listed = run([*smi.split(), "-L"], doing="listing the chips", hint="").output
    except PipelineError:
        return f"{host}, {smi} fails"
    names = [line.partition(":")[2].partition("(UUID")[0].strip() for line in listed.splitlines()]
    return ", ".join(names)
