"""A tiny language model with vLLM's replies: one token per character, next-token probabilities from the last two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

VOCABULARY = 128  # ASCII
Row = npt.NDArray[np.float64]


@cache
def _normal(seed: tuple[int, ...]) -> Row:
    return 2.5 * np.random.default_rng(seed).standard_normal(VOCABULARY)


@dataclass(kw_only=True)
class ToyModel:
    """Left alone it is the reference; `noise` moves every logit a little, `spoil` changes a row at will."""

    noise: float = 0.0
    seed: int = 0
    spoil: Callable[[tuple[int, ...], Row], Row] | None = None
    first_id: int = 0  # added to every token id: another tokenizer

    def tokens(self, text: str) -> list[int]:
        return [(ord(letter) + self.first_id) % VOCABULARY for letter in text]

    def logprobs(self, context: tuple[int, ...]) -> Row:
        """Of the whole vocabulary, nats."""
        logits = _normal((*context[-2:], 11))
        if self.noise:
            logits = logits + self.noise * _normal((*context[-2:], self.seed, 12)) / 2.5
        row: Row = logits - np.log(np.exp(logits).sum())
        return self.spoil(context, row) if self.spoil else row

    def scored(self, ids: list[int], top_k: int) -> list[dict[str, Any] | None]:
        entries: list[dict[str, Any] | None] = [None]
        for position in range(1, len(ids)):
            row = self.logprobs(tuple(ids[:position]))
            ranked = np.argsort(-row, kind="stable").tolist()
            entries.append(
                {
                    str(token): {
                        "logprob": float(row[token]),
                        "rank": ranked.index(token) + 1,
                        "decoded_token": chr(token),
                    }
                    for token in dict.fromkeys([ids[position], *ranked[:top_k]])
                }
            )
        return entries

    def decoded(self, ids: list[int], tokens: int, top_k: int) -> tuple[list[int], dict[str, Any]]:
        answer: list[int] = []
        top: list[dict[str, float]] = []
        for _ in range(tokens):
            row = self.logprobs((*ids, *answer))
            ranked = np.argsort(-row, kind="stable")[:top_k].tolist()
            answer.append(ranked[0])
            top.append({f"token_id:{token}": float(row[token]) for token in ranked})
        logprobs = {
            "tokens": [f"token_id:{token}" for token in answer],
            "token_logprobs": [
                entry[f"token_id:{token}"] for token, entry in zip(answer, top, strict=True)
            ],
            "top_logprobs": top,
        }
        return answer, logprobs

    def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == "/tokenize":
            return {"tokens": self.tokens(body["prompt"])}
        ids = body["prompt"]
        choice: dict[str, Any] = {"index": 0, "prompt_token_ids": ids, "finish_reason": "length"}
        if "prompt_logprobs" in body:
            choice["prompt_logprobs"] = self.scored(ids, body["prompt_logprobs"])
        if body.get("logprobs"):
            answer, logprobs = self.decoded(ids, body["max_tokens"], body["logprobs"])
            choice |= {"token_ids": answer, "logprobs": logprobs}
        return {"choices": [choice]}
