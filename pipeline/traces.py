"""What a stack answered to the logit pre-gate, as arrays: `world/teacher.py` asks, `gate/logits.py` judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.logit_policy import LogitProfile

Ids = npt.NDArray[np.int32]
Logprobs = npt.NDArray[np.float32]
PassName = Literal["prefill together", "prefill alone", "decode together", "decode alone"]

NO_TOKEN = -1  # fills a row whose list is shorter than k


@dataclass(frozen=True, kw_only=True, eq=False)
class Lists:
    """The k likeliest tokens at consecutive positions of one text; a row is a position."""

    tokens: Ids  # (positions, k), likeliest first
    logprobs: Logprobs  # (positions, k), nats
    text_logprobs: Logprobs  # (positions,): of the token that the text has there
    generated: (
        Ids  # (positions,): the tokens of a decoded answer; empty where a given text was scored
    )
    error: str = ""  # why there is no answer; the arrays are empty then

    @property
    def positions(self) -> int:
        return len(self.tokens)


def no_lists(error: str, top_k: int) -> Lists:
    return Lists(
        tokens=np.zeros((0, top_k), np.int32),
        logprobs=np.zeros((0, top_k), np.float32),
        text_logprobs=np.zeros(0, np.float32),
        generated=np.zeros(0, np.int32),
        error=error,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """One stack's answers. The n-th entry of every pass belongs to the n-th prompt."""

    stack: str
    texts: tuple[str, ...]  # SHA-256 over the token ids of prompt and answer; "" where unknown
    passes: Mapping[PassName, tuple[Lists, ...]]
    seconds: Mapping[str, float] = field(default_factory=dict)  # per pass, and "warm-up"


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceTrace:
    """The reference's answers, and what another stack needs to be asked the same."""

    profile: LogitProfile
    top_k: int
    trace: Trace
    answers: tuple[tuple[int, ...], ...]  # token ids the reference gave; one per prompt, () if none
