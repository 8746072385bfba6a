"""The policy of the accuracy gate: data of matrix.yaml, fixed before scores are seen, named by its hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from pipeline.canonical import canonical, sha256_bytes
from pipeline.logit_policy import LogitLimits


def _share(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise PydanticCustomError("share", "expected a number from 0 to 1")
    return value


def _rising(value: Any) -> Any:
    if isinstance(value, list | tuple) and list(value) != sorted(set(value)):
        raise PydanticCustomError("looks", "expected rising numbers of runs, like [1, 2, 4]")
    return value


Share = Annotated[float, BeforeValidator(_share)]
Looks = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), BeforeValidator(_rising)
]
Band = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Gate(BaseModel, frozen=True, extra="forbid"):
    """What the accuracy gate may accept. Levels are one-sided; margins are shares of the score."""

    alpha: Share  # of accepting a loss at a benchmark's margin, over all looks together
    margin: Share
    margins: dict[str, Share] = {}  # benchmarks that have another margin
    pooled_margin: Share | None = None  # of the mean over all items; without it not judged
    pooled_alpha: Share | None = None  # of accepting a loss at the pooled margin; default alpha
    harm: bool = True  # whether a loss that is shown fails, even inside a margin (R1)
    harm_alpha: Share | None = None  # of failing an equal candidate; default alpha
    relative_below: Share = 0.2  # below this score a margin shrinks in proportion to the score
    power_margins: float = Field(ge=0)  # how far above guessing the reference surely is
    looks: Looks = (1, 2, 4)  # runs of every item after which is judged, cumulative
    advisory: tuple[str, ...] = ()  # benchmarks that are shown and never decide
    length_ratio: Band = (0.9, 1.1)  # of generated tokens, candidate to reference
    unusable_excess: Share = 0.01  # failed, cut or unreadable answers beyond the reference's
    concurrency: int = Field(ge=1)
    seed: int  # of the first run; each further run takes the next one
    temperature: float = Field(default=0, ge=0)
    texts: tuple[
        str, ...
    ] = ()  # builtin benchmarks whose texts the pre-gate scores; default: the cell's own
    logits: LogitLimits = LogitLimits()  # of the pre-gate

    def margin_of(self, benchmark: str) -> float:
        return self.margins.get(benchmark, self.margin)


class GateOverride(BaseModel, frozen=True, extra="forbid"):
    """What a model or a cell has otherwise; `margins` and `advisory` replace, they do not add."""

    alpha: Share | None = None
    margin: Share | None = None
    margins: dict[str, Share] | None = None
    pooled_margin: Share | None = None
    pooled_alpha: Share | None = None
    harm: bool | None = None
    harm_alpha: Share | None = None
    relative_below: Share | None = None
    power_margins: float | None = Field(default=None, ge=0)
    looks: Looks | None = None
    advisory: tuple[str, ...] | None = None
    length_ratio: Band | None = None
    unusable_excess: Share | None = None
    temperature: float | None = Field(default=None, ge=0)
    texts: tuple[str, ...] | None = None
    logits: LogitLimits | None = None


def policy_sha256(gate: Gate, benchmarks: Iterable[str]) -> str:
    """Names the policy in a verdict: every number of it, and the benchmarks it was applied to."""
    policy = {"gate": gate.model_dump(mode="json"), "benchmarks": sorted(benchmarks)}
    return sha256_bytes(canonical(policy))
