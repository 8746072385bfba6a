"""What is read of the replies of vLLM's OpenAI-compatible server; other fields are left out."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel


class Tokens(BaseModel):
    tokens: list[int]


class TokenLogprob(BaseModel):
    logprob: float | None


class ScoredPrompt(BaseModel):
    index: int
    finish_reason: str | None
    prompt_logprobs: list[dict[str, TokenLogprob] | None]

    def logprobs(self) -> list[Mapping[str, float | None] | None]:
        """Per prompt token a map of token id (a string) to log-probability; None for the first."""
        return [
            None if entry is None else {token: value.logprob for token, value in entry.items()}
            for entry in self.prompt_logprobs
        ]


class ScoredPrompts(BaseModel):
    choices: list[ScoredPrompt]


class Message(BaseModel):
    content: str | None


class Reply(BaseModel):
    message: Message
    finish_reason: str | None


class Usage(BaseModel):
    completion_tokens: int


class Chat(BaseModel):
    choices: list[Reply]
    usage: Usage
