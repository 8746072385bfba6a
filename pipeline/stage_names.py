"""The stages of the flow, in its order."""

from __future__ import annotations

from typing import Literal, get_args

StageName = Literal[
    "render",
    "build",
    "weights",
    "smoke",
    "accuracy",
    "performance",
    "rehearse",
    "card",
    "attest",
    "promote",
    "publish",
]
STAGES: tuple[StageName, ...] = get_args(StageName)
AFTER_THE_SEAL: tuple[StageName, ...] = STAGES[STAGES.index("attest") :]
