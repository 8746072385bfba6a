"""What the logit pre-gate asks and accepts, as data. Divergences in nats, margins in nats of log-probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ProfileName = Literal["release", "quick"]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LogitProfile(Strict):
    """How much is asked. Every pass covers the first so many prompts, so that passes can be paired."""

    name: str
    prompts: int = Field(ge=1)  # scored together
    answered: int = Field(
        ge=1
    )  # continued greedily, together; the answer is scored with the prompt
    # One at a time; together against alone is also the reference's A/A floor.
    scored_alone: int = Field(ge=1)
    decoded_alone: int = Field(ge=1)
    answer_tokens: int = Field(ge=1)
    batch: int = Field(ge=2)  # requests in flight where prompts go together
    min_positions: int = Field(ge=1)  # scored together; with fewer there is no verdict


class LogitLimits(Strict):
    """When divergence fails or warns. Ratios are to the floor: the reference against itself.

    The numbers are those of the fact sheet, calibrated on legitimate variants and planted bugs.
    """

    top_k: int = Field(default=20, ge=2)
    floor_mean: float = Field(default=8e-4, gt=0)  # the floor is never taken as less
    floor_p99: float = Field(default=6e-3, gt=0)
    warn_ratio: float = Field(default=2.0, ge=1)
    fail_ratio: float = Field(default=5.0, ge=1)
    fail_mean: float = Field(default=5e-3, gt=0)  # nothing below fails, whatever its ratio
    fail_p99: float = Field(default=5e-2, gt=0)
    warn_margin: float = Field(default=0.3, gt=0)  # of the reference where the first tokens differ
    fail_margin: float = Field(default=1.0, gt=0)
    # With fewer positions the 99th percentile is one of the two largest values: shown, not judged.
    p99_positions: int = Field(default=200, ge=1)
    # A reference that differs from itself by more would excuse any candidate: no verdict then.
    largest_floor_mean: float = Field(default=5e-3, gt=0)
    largest_floor_p99: float = Field(default=5e-2, gt=0)


PROFILES: Mapping[ProfileName, LogitProfile] = {
    "release": LogitProfile(
        name="release",
        prompts=64,
        answered=32,
        scored_alone=16,
        decoded_alone=2,
        answer_tokens=64,
        batch=32,
        min_positions=5000,
    ),
    # For probes of a search: seconds each, and no word on a release.
    "quick": LogitProfile(
        name="quick",
        prompts=8,
        answered=8,
        scored_alone=2,
        decoded_alone=1,
        answer_tokens=16,
        batch=8,
        min_positions=200,
    ),
}
