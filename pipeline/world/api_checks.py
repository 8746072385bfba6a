"""What a server of the OpenAI API is asked before a stack is believed: one function a check, with what was seen."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.checks import Outcome
from pipeline.model import Chat
from pipeline.pictures import COLOURS, names_only, question_of
from pipeline.smoke_result import Sight
from pipeline.world.openai import Answer, OpenAI

LONG_PROMPT_TOKENS = 2000
MEASURED_TOKENS = 64
AT_ONCE = 8
PICTURE_TOKENS = 256  # room for a model that thinks first


def model_list(ai: OpenAI) -> Outcome:
    answer = ai.models()
    ids = [str(model.get("id")) for model in answer.body.get("data", [])]
    return ids == [ai.model], answer.error or ", ".join(ids)


def same_answer_twice(ai: OpenAI, prompt: str) -> Outcome:
    first, second = ai.chat(prompt, max_tokens=32), ai.chat(prompt, max_tokens=32)
    same = first.text == second.text and bool(first.text)
    return same, "equal" if same else f"{_seen(first)} / {_seen(second)}"


def streaming(ai: OpenAI, prompt: str) -> Outcome:
    whole = ai.chat(prompt, max_tokens=32).text
    text, chunks, error = ai.stream(prompt, max_tokens=32)
    return not error and chunks > 1 and text == whole, error or f"{chunks} chunks: {text!r}"


def logprobs(ai: OpenAI, prompt: str) -> Outcome:
    answer = ai.chat(prompt, max_tokens=8, logprobs=True, top_logprobs=5)
    choices = answer.body.get("choices") or [{}]
    content = (choices[0].get("logprobs") or {}).get("content") or []
    values = [top["logprob"] for token in content for top in token["top_logprobs"]]
    fine = bool(values) and all(math.isfinite(value) and value > -9999 for value in values)
    return fine, answer.error or f"{len(values)} values, lowest {min(values, default=0):.2f}"


def wrong_model(ai: OpenAI) -> Outcome:
    answer = ai.chat("Hello", model="no-such-model", max_tokens=1)
    return 400 <= answer.status < 500, answer.error or f"HTTP {answer.status}"


def longest(ai: OpenAI) -> int:
    """How many tokens the server takes and gives together, as its model list says."""
    models = ai.models().body.get("data") or [{}]
    return int(models[0].get("max_model_len") or 0)


def long_prompt(ai: OpenAI) -> Outcome:
    """A prompt of 2,000 tokens, or as long as the server takes."""
    wanted = min(LONG_PROMPT_TOKENS, longest(ai) - 16)
    token = 1000  # any ordinary id; the length is what is tested
    answer = ai.complete([token] * wanted, max_tokens=4)
    counted = int((answer.body.get("usage") or {}).get("prompt_tokens") or 0)
    return answer.status == 200 and counted == wanted, answer.error or f"{counted} tokens"


def at_once(ai: OpenAI, prompt: str) -> Outcome:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(
            pool.map(lambda n: ai.chat(f"{prompt} ({n})", max_tokens=16), range(AT_ONCE))
        )
    failed = [answer.error for answer in answers if answer.status != 200 or not answer.text]
    return (
        not failed,
        f"{AT_ONCE - len(failed)} of {AT_ONCE} answered {'; '.join(failed[:2])}".strip(),
    )


def pictures(ai: OpenAI, chat: Chat, sights: list[Sight]) -> Outcome:
    """The same question of squares of several colours; each answer names its own colour alone."""
    stop: dict[str, Any] = {"stop_token_ids": chat.stop_token_ids} if chat.stop_token_ids else {}
    seen, right = list[str](), True
    for colour in COLOURS:
        answer = ai.chat(question_of(colour), max_tokens=PICTURE_TOKENS, **stop)
        sights.append(Sight(colour=colour, answer=answer.text[:300]))
        seen.append(f"{colour} square: {_seen(answer)}")
        right = right and answer.status == 200 and names_only(colour, answer.text)
    return right, "; ".join(seen)


def rate(ai: OpenAI) -> float:
    """Output tokens per second of one request."""
    started = time.monotonic()
    answer = ai.complete("Once upon a time", max_tokens=MEASURED_TOKENS, ignore_eos=True)
    return answer.completion_tokens / (time.monotonic() - started)


def _seen(answer: Answer) -> str:
    return answer.error or repr(answer.text[:300])
