"""What a result file of another harness is said to come from: the words of its sidecar, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pipeline.benchmark import ResultFormat
from pipeline.matrix_values import ServeValue, Sha256, Version

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Named = Annotated[str, StringConstraints(min_length=1)]


class Stated(BaseModel):
    """Frozen, an unknown key is a fault, and no number is infinite or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Generation(Stated):
    """What the harness sent with every request, and how many at once."""

    temperature: float = Field(ge=0)
    max_tokens: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    seed: int | None = None  # None: the harness sent none
    others: Mapping[str, ServeValue] = {}  # like top_p, or the system prompt's hash


class ResultSource(Stated):
    """`<file>.source.json`: who answered, who asked, and which file this is said of."""

    result_sha256: Sha256
    stack: Named
    image: Digest  # that was served: its config or its manifest digest
    weights_sha256: Sha256  # as the record's weights stage has it
    serve: Mapping[str, ServeValue]  # arguments of the server
    harness: ResultFormat
    harness_version: Version
    data: Named  # what was asked, with revision or hash: pictures are in no prompt hash
    generation: Generation

    @property
    def settings(self) -> dict[str, str]:
        """What two stacks must have in common; the seed is held to item by item, with the rows."""
        sent = self.generation
        return {
            "harness": f"{self.harness} {self.harness_version}",
            "data": self.data,
            "temperature": f"{sent.temperature:g}",
            "max_tokens": str(sent.max_tokens),
            "concurrency": str(sent.concurrency),
            **{name: str(value) for name, value in sent.others.items()},
        }


class ImportedRuns(Stated):
    """The result files of one imported benchmark: how many runs they are, and whether they may decide."""

    runs: int  # of which both stacks have a file; there are no more rows than these
    next_file: str  # where one more run would lie; the same place in every stack's folder
    doubts: tuple[str, ...] = ()  # why it decides nothing; empty: made by the cell's own stacks
    sources: Mapping[str, tuple[ResultSource, ...]] = {}  # by stack, in the order of the runs
