"""Memory of this machine's cards: whether a server that is about to start finds its share free, and who holds it."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass

from pipeline.chip import Smi
from pipeline.errors import PipelineError, WorldError
from pipeline.world.command import run
from pipeline.world.engine_host import is_elsewhere

LEAST_SHARE = 0.9  # what vLLM takes when nothing is asked for: 0.92 in 0.24.0, 0.9 before
PATIENCE_S = 30.0  # a card gives back what a server has held shortly after it ended
POLL_S = 1.0
MIB_A_GIB = 1024


@dataclass(frozen=True, kw_only=True)
class CardShare:
    """What a server takes of its cards' memory."""

    smi: Smi
    cards: tuple[int, ...]
    share: float  # of each


@dataclass(frozen=True, kw_only=True)
class CardMemory:
    free_mib: int
    total_mib: int


def refuse_busy_cards(wanted: CardShare) -> None:
    """Raises WorldError when something else holds what the server would take, naming it where the tool does."""
    until = time.monotonic() + PATIENCE_S
    while short := too_full(wanted):
        if time.monotonic() >= until:
            raise WorldError(
                "the device is busy: " + "; ".join(short),
                where=wanted.smi.memory or "",
                details=holders(wanted.smi),
                hint="end what holds it, or lower gpu_memory_utilization of the cell; then run the same command again",
            )
        time.sleep(POLL_S)


def too_full(wanted: CardShare) -> list[str]:
    """A sentence for every card without enough room."""
    found = dict(enumerate(card_memory(wanted.smi)))
    return [
        f"card {number} has {card.free_mib / MIB_A_GIB:.1f} of {card.total_mib / MIB_A_GIB:.1f} GiB free, and "
        f"{wanted.share * card.total_mib / MIB_A_GIB:.1f} are wanted"
        for number in wanted.cards
        if (card := found.get(number)) and card.free_mib < wanted.share * card.total_mib
    ]


def card_memory(smi: Smi) -> tuple[CardMemory, ...]:
    """Of this machine's cards in their order; () where the chip's tool cannot be asked: the server finds out itself."""
    if smi.memory is None or is_elsewhere() or shutil.which(smi.command.split()[0]) is None:
        return ()
    pairs = re.findall(r"^\s*(\d+)\D+(\d+)\s*$", _asked(smi.memory), flags=re.MULTILINE)
    return tuple(CardMemory(free_mib=int(free), total_mib=int(total)) for free, total in pairs)


def holders(smi: Smi) -> str:
    """Who holds memory of cards, as the chip's tool prints it."""
    found = _asked(smi.holders).strip() if smi.holders else ""
    return f"{smi.holders}:\n{found}" if found else "the chip's tool names no process that holds it"


def _asked(command: str) -> str:
    try:
        return run(
            ["sh", "-c", command], doing="asking for the cards' memory", hint="", timeout_s=60
        ).output
    except PipelineError:
        return ""
