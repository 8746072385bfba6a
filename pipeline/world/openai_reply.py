"""What is read of the replies of vLLM's OpenAI-compatible server; other fields are left out."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, Field


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


class RankedLogprob(TokenLogprob):
    rank: int | None


class RankedPrompt(BaseModel):
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, RankedLogprob] | None]


class RankedPrompts(BaseModel):
    choices: list[RankedPrompt] = Field(min_length=1)


class TokenIdLogprobs(BaseModel):
    """With `return_tokens_as_token_ids` a token is written "token_id:17"."""

    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float | None] | None]


class Decoded(BaseModel):
    prompt_token_ids: list[int]
    token_ids: list[int]
    logprobs: TokenIdLogprobs


class DecodedTexts(BaseModel):
    choices: list[Decoded] = Field(min_length=1)
