"""What a rehearsal leaves in the record: every block of the card, how it ended, and in what it was not as printed."""

from __future__ import annotations

from typing import Literal

from pipeline.results import Frozen


class Substitution(Frozen):
    """Something of a printed block that was another thing when it ran."""

    kind: Literal[
        "image",  # not public yet: the staging repository has the same digest
        "folder",  # of the weights: another one of this machine
        "weights",  # a local copy was there, so the block that downloads them did not run
    ]
    printed: str
    ran: str


class RehearsedBlock(Frozen):
    """One block of the card, in its order."""

    section: str  # title of the heading above it, on the English card
    language: str
    text: str  # as printed
    status: Literal[
        "passed",
        "failed",
        "not_run",  # a block before it failed
        "replaced",  # a substitution stands for all of it
        "checked",  # its syntax alone
    ]
    exit_code: int | None = None
    seconds: float = 0
    output: str = ""  # its last lines


class RehearseResult(Frozen):
    blocks_sha256: str  # of all blocks; the card prints exactly these
    blocks: tuple[RehearsedBlock, ...]
    substitutions: tuple[Substitution, ...] = ()
    machine: str = ""  # of the reader, as it describes itself
    why_not: str = ""  # why nothing was run; "": it was

    @property
    def failed(self) -> RehearsedBlock | None:
        return next((block for block in self.blocks if block.status == "failed"), None)
