"""How much of each resource a release takes at once on this host: defaults, and what `--jobs` makes of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from pipeline.chip import Chip
from pipeline.errors import UsageError
from pipeline.matrix_names import nearest

BUILD, PUSH = "build", "push"
DEFAULTS: Mapping[str, int] = {BUILD: 1, PUSH: 4}
EVERY_OTHER = 1  # a chip's node serves one stack at a time; a port and a folder have one user
MOST = 64


def chip_resource(chip_id: str, chip: Chip) -> str:
    """What serving on a chip takes. Chips without cards of their own share the processor."""
    return "cpu" if chip.memory_gb is None and chip.smi is None else f"gpu:{chip_id}"


def limits_of(jobs: str, chips: Mapping[str, Chip]) -> dict[str, int]:
    """The defaults with what `jobs` says, like `build=2,gpu:nvidia=1`. Raises UsageError that names every fault."""
    known = [*DEFAULTS, *dict.fromkeys(chip_resource(*chip) for chip in chips.items())]
    words = [word.strip() for word in jobs.split(",")] if jobs else []
    found = [word.partition("=") for word in words]
    named = [name for name, _, _ in found]
    faults = [
        f"{word or '(nothing)'}: {fault}"
        for word, (name, _, number) in zip(words, found, strict=True)
        if (fault := _fault(name, number, named.count(name), known))
    ]
    if faults:
        raise UsageError(
            f"{len(faults)} of {len(words)} limits cannot be used",
            where="--jobs",
            details="\n".join(faults),
            hint=f"write --jobs build=1,push=4; resources: {', '.join(known)}",
        )
    return {**DEFAULTS, **{name: int(number) for name, _, number in found}}


def _fault(name: str, number: str, times: int, known: Iterable[str]) -> str:
    if name not in known:
        return f"no resource is called so, {nearest(name, known)}"
    if not re.fullmatch("[0-9]{1,4}", number) or not 1 <= int(number) <= MOST:
        return f"expected a whole number from 1 to {MOST} after ="
    return f"given {times} times" if times > 1 else ""
