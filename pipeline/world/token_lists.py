"""From the log-probabilities of a reply to arrays. Faults of values stay in them, to be counted by the gate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pipeline.traces import NO_TOKEN, Lists
from pipeline.world.endpoint import ItemError
from pipeline.world.openai_reply import Decoded, RankedPrompt

Entry = tuple[int, float | None, int]  # token, log-probability, rank


def scored_lists(reply: RankedPrompt, ids: Sequence[int], top_k: int) -> Lists:
    """Positions 1 and up of a text that was sent: nothing precedes its first token."""
    entries = reply.prompt_logprobs
    if len(entries) != len(ids) or any(entry is None for entry in entries[1:]):
        raise ItemError("POST /v1/completions did not score every token that was sent")
    rows = [
        [(token, value.logprob, value.rank or 0) for token, value in entry.items()]
        for entry in entries[1:]
        if entry is not None
    ]
    text = [
        entry[token].logprob if entry is not None and token in entry else None
        for token, entry in zip(ids[1:], entries[1:], strict=True)
    ]
    return _lists(rows, text, [], top_k)


def decoded_lists(reply: Decoded, tokens: int, top_k: int) -> Lists:
    ids, values = reply.token_ids, reply.logprobs
    if not len(ids) == len(values.top_logprobs) == len(values.token_logprobs) == tokens:
        raise ItemError(f"POST /v1/completions decoded {len(ids)} tokens, {tokens} were asked for")
    rows = [
        # Written in the order of rank, behind the sampled token; the rank itself is not written.
        [(_token(name), value, rank) for rank, (name, value) in enumerate((entry or {}).items())]
        for entry in values.top_logprobs
    ]
    return _lists(rows, values.token_logprobs, ids, top_k)


def _token(name: str) -> int:
    try:
        return int(name.removeprefix("token_id:"))
    except ValueError:
        raise ItemError("POST /v1/completions wrote tokens as text, ids were asked for") from None


def _lists(
    rows: Sequence[Sequence[Entry]],
    text: Sequence[float | None],
    generated: Sequence[int],
    top_k: int,
) -> Lists:
    tokens = np.full((len(rows), top_k), NO_TOKEN, np.int32)
    logprobs = np.zeros((len(rows), top_k), np.float32)
    for position, row in enumerate(rows):
        # The token of the text comes on top of the k; ties keep the server's order.
        for place, (token, value, _) in enumerate(sorted(row, key=_order)[:top_k]):
            tokens[position, place] = token
            logprobs[position, place] = math.nan if value is None else value
    return Lists(
        tokens=tokens,
        logprobs=logprobs,
        text_logprobs=np.array([math.nan if one is None else one for one in text], np.float32),
        generated=np.array(generated, np.int32),
    )


def _order(entry: Entry) -> tuple[float, int]:
    """NaN first, so that the cut to k never hides one."""
    _, value, rank = entry
    return (-math.inf if value is None or math.isnan(value) else -value, rank)
