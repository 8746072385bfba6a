"""Traces built by hand, for the tests of the pre-gate. A row maps a token to its probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.gate.logits import PASSES
from pipeline.logit_policy import LogitProfile
from pipeline.traces import Lists, PassName, ReferenceTrace, Trace

Row = Mapping[int, float]

PROFILE = LogitProfile(
    name="toy",
    prompts=2,
    answered=2,
    scored_alone=2,
    decoded_alone=1,
    answer_tokens=4,
    batch=8,
    min_positions=8,
)
COUNTS: Mapping[PassName, int] = {
    "prefill together": 2,
    "prefill alone": 2,
    "decode together": 2,
    "decode alone": 1,
}
EVEN: Row = {7: 0.5, 8: 0.4}


def lists(rows: Sequence[Row], generated: Sequence[int] = (), error: str = "") -> Lists:
    """The text's own token is the likeliest one at every position."""
    tokens = [list(row) for row in rows]
    with np.errstate(divide="ignore", invalid="ignore"):
        logprobs = np.log(np.array([list(row.values()) for row in rows], np.float64))
    logprobs = logprobs.reshape(len(rows), -1)
    return Lists(
        tokens=np.array(tokens, np.int32).reshape(logprobs.shape),
        logprobs=logprobs.astype(np.float32),
        text_logprobs=logprobs[:, 0].astype(np.float32) if rows else np.zeros(0, np.float32),
        generated=np.array(generated, np.int32),
        error=error,
    )


def answers(name: PassName, row: Row, positions: int = 4) -> Lists:
    generated = [next(iter(row))] * positions if name.startswith("decode") else []
    return lists([row] * positions, generated)


def trace(stack: str, row: Row = EVEN, /, **changes: tuple[Lists, ...]) -> Trace:
    """Every position of every pass has the same row; a pass can be replaced: `decode_alone=…`."""
    passes = {name: (answers(name, row),) * COUNTS[name] for name in PASSES}
    replaced = {name: changes.pop(name.replace(" ", "_"), passes[name]) for name in PASSES}
    return Trace(stack=stack, texts=("one", "two"), passes=replaced)


def reference(row: Row = EVEN, /, **changes: tuple[Lists, ...]) -> ReferenceTrace:
    return ReferenceTrace(
        profile=PROFILE, top_k=2, trace=trace("float32", row, **changes), answers=((7,), (7,))
    )
