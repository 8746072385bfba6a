"""The builtin evaluator: asks a served stack every item; one becomes one row, whatever happens to its requests.

Likelihood follows lm-evaluation-harness: the tokens of a choice are those that `context + " " +
choice` has beyond the tokens of the context alone. Generated code is judged by running it, all
programs at once. Rows hold ids and hashes; error texts never quote a request or an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Any

import requests

from pipeline.accuracy_result import ItemRow
from pipeline.canonical import canonical, sha256_bytes
from pipeline.errors import UsageError
from pipeline.world.benchmark_data import Item
from pipeline.world.endpoint import Door, Endpoint, ItemError
from pipeline.world.human_eval import code_of, program
from pipeline.world.openai_reply import Chat, ScoredPrompts
from pipeline.world.scoring import best_choice, continuation_logprob, extracted_number

Progress = Callable[[str, int, int], None]  # stack, items done, items in all
RunPrograms = Callable[[Sequence[str]], tuple[str, ...]]  # "passed", or what happened instead


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one item came to. `sent` is hashed as the identity of the prompt."""

    sent: Any
    is_right: bool = False
    answer: str = ""
    finish_reason: str = ""
    tokens: int = 0
    error: str = ""
    response: Any = ""
    program: str = ""  # is_right is not known before it has run


def evaluate(
    endpoint: Endpoint,
    items: Sequence[Item],
    *,
    stack: str,
    concurrency: int,
    seed: int,
    progress: Progress,
    repeat: int = 0,
    temperature: float = 0,
    run_programs: RunPrograms | None = None,
) -> tuple[ItemRow, ...]:
    """One row per item, in the order of `items`. `temperature` is of written answers; likelihoods have none.

    Raises WorldError when the server is gone, UsageError when there is code to run and nowhere to run it.
    """
    if run_programs is None and any(item.task == "code" for item in items):
        raise UsageError(
            "answers are programs, and the evaluator was given no container to run them in",
            where=next(item.benchmark for item in items if item.task == "code"),
        )
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        futures = [pool.submit(_answer, endpoint, item, seed, temperature) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                progress(stack, done, len(items))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    answers = _judged([future.result() for future in futures], run_programs)
    return tuple(
        _row(item, answer, stack, seed, repeat) for item, answer in zip(items, answers, strict=True)
    )


def _answer(endpoint: Endpoint, item: Item, seed: int, temperature: float) -> Answer:
    with requests.Session() as session:
        # A proxy of this machine's environment has no business between us and a server we started.
        session.trust_env = False
        door = Door(endpoint, session)
        match item.task:
            case "choice":
                return _choose(door, item, seed)
            case "number":
                return _solve(door, item, seed, temperature)
            case "code":
                return _write(door, item, seed, temperature)


def _judged(answers: Sequence[Answer], run_programs: RunPrograms | None) -> list[Answer]:
    """The answers, those with a program by what running it came to."""
    programs = [answer.program for answer in answers if answer.program]
    outcomes = iter(run_programs(programs) if run_programs and programs else ())
    return [
        replace(answer, answer=(outcome := next(outcomes)), is_right=outcome == "passed")
        if answer.program
        else answer
        for answer in answers
    ]


def _row(item: Item, answer: Answer, stack: str, seed: int, repeat: int) -> ItemRow:
    return ItemRow(
        benchmark=item.benchmark,
        item=item.item,
        cluster=item.cluster or item.item,
        stack=stack,
        repeat=repeat,
        seed=seed,
        score=1 if answer.is_right and not answer.error else 0,
        prompt_sha256=sha256_bytes(canonical(answer.sent)),
        answer=answer.answer,
        finish_reason=answer.finish_reason,
        tokens=answer.tokens,
        error=answer.error,
        response_sha256=sha256_bytes(repr(answer.response).encode()),
    )


def _choose(door: Door, item: Item, seed: int) -> Answer:
    """Multiple choice by likelihood: all choices of the item in one request."""
    texts = [f"{item.prompt} {choice}" for choice in item.choices]
    settings = {"max_tokens": 1, "temperature": 0, "seed": seed, "prompt_logprobs": 1}
    sent: dict[str, Any] = {"context": item.prompt, "texts": texts, **settings}
    try:
        start = len(door.tokens(item.prompt))
        prompts = [door.tokens(text) for text in texts]
        sent = {**sent, "context_tokens": start, "prompt": prompts}
        reply = door.post("/v1/completions", {"prompt": prompts, **settings}, ScoredPrompts)
        scored = sorted(reply.choices, key=lambda choice: choice.index)
        if [len(one.prompt_logprobs) for one in scored] != [len(ids) for ids in prompts]:
            raise ItemError("POST /v1/completions did not score every token that was sent")
    except ItemError as error:
        return Answer(sent=sent, error=str(error))
    logprobs = [
        continuation_logprob(one.logprobs(), ids, start)
        for one, ids in zip(scored, prompts, strict=True)
    ]
    lengths = [max(1, len(choice.encode())) if item.per_byte else 1 for choice in item.choices]
    best = best_choice([total / length for total, length in zip(logprobs, lengths, strict=True)])
    return Answer(
        sent=sent,
        is_right=str(best) == item.expected,
        answer="" if best is None else str(best),
        finish_reason=scored[0].finish_reason or "",
        tokens=sum(len(ids) - start for ids in prompts),
        response=logprobs,
    )


def _solve(door: Door, item: Item, seed: int, temperature: float) -> Answer:
    """A written answer that ends in a number."""
    answer = _generate(door, item, seed, temperature)
    number = extracted_number(str(answer.response))
    is_right = number != "" and number == extracted_number(item.expected)
    return replace(answer, answer=number, is_right=is_right)


def _write(door: Door, item: Item, seed: int, temperature: float) -> Answer:
    """A written function; the item's expectation is its case, as JSON."""
    answer = _generate(door, item, seed, temperature)
    if answer.error:
        return answer
    case = json.loads(item.expected)
    code = code_of(str(answer.response), case["entry_point"])
    return replace(answer, program=program(code, case))


def _generate(door: Door, item: Item, seed: int, temperature: float) -> Answer:
    body = {
        "messages": [{"role": "user", "content": item.prompt}],
        "max_tokens": item.max_tokens,
        "temperature": temperature,
        "seed": seed,
    }
    try:
        reply = door.post("/v1/chat/completions", body, Chat)
        if not reply.choices:
            raise ItemError("POST /v1/chat/completions answered without a choice")
    except ItemError as error:
        return Answer(sent=body, error=str(error))
    return Answer(
        sent=body,
        finish_reason=reply.choices[0].finish_reason or "",
        tokens=reply.usage.completion_tokens,
        response=reply.choices[0].message.content or "",
    )
