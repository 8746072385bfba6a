"""Asks a served stack for next-token probabilities, of given texts and of its own greedy answers.

Teacher forcing: both stacks score the same token ids, a prompt and the reference's own answer, so
that one other token does not spoil the rest. No text is kept: a trace holds the answers, and
hashes of what was asked.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from pipeline.canonical import canonical, sha256_bytes
from pipeline.logit_policy import LogitProfile
from pipeline.traces import Lists, PassName, ReferenceTrace, Trace, no_lists
from pipeline.world.endpoint import Door, Endpoint, ItemError
from pipeline.world.evaluator import Progress
from pipeline.world.openai import direct_session
from pipeline.world.openai_reply import DecodedTexts, RankedPrompts
from pipeline.world.token_lists import decoded_lists, scored_lists

Ids = tuple[int, ...]
Question = Callable[[Door], Lists]


def short_and_long(
    texts: Sequence[str], count: int, *, least_characters: int = 40, most_characters: int = 4000
) -> list[str]:
    """`count` of the texts: a short one (of the shorter half), a long one (of the longest quarter), and so on.

    Every beginning of the list is mixed alike; equal texts are taken once, shorter and longer ones never:
    a sum of a dozen characters gives no positions to compare.
    """
    known = {text for text in texts if least_characters <= len(text) <= most_characters}
    ranked = sorted(known, key=lambda text: (len(text), text))
    if len(ranked) <= count:
        return ranked
    half = count // 2
    longs = _spread(ranked[-max(half, len(ranked) // 4) :], half)
    shorts = _spread(ranked[: max(count - half, len(ranked) // 2)], count - half)
    # Where the two ranges overlap a text is in both; the rest fills up from the shortest.
    mixed = list(
        dict.fromkeys(text for pair in zip_longest(shorts, longs) for text in pair if text)
    )
    return [*mixed, *(text for text in ranked if text not in mixed)][:count]


def _spread(texts: Sequence[str], count: int) -> list[str]:
    """Evenly over the lengths, in an order that hangs on the texts alone."""
    chosen = [texts[index * len(texts) // count] for index in range(count)]
    return sorted(chosen, key=lambda text: sha256_bytes(text.encode()))


def collect_reference(
    endpoint: Endpoint,
    profile: LogitProfile,
    prompts: Sequence[str],
    *,
    stack: str,
    top_k: int,
    progress: Progress,
) -> ReferenceTrace:
    """The reference's answers and its log-probabilities, together and alone: the A/A floor.

    Raises WorldError when the server is gone; a failed request becomes an error of its text.
    """
    asking = _Asking(endpoint=endpoint, stack=stack, top_k=top_k, progress=progress)
    asked = asking.tokenized(prompts[: profile.prompts])
    asking.warm_up(asked)
    decoded = asking.decode("decode together", asked[: profile.answered], profile, profile.batch)
    answers = tuple(tuple(map(int, lists.generated)) for lists in decoded)
    answers += ((),) * (len(asked) - len(answers))
    texts = [_text(prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]
    asking.score("prefill together", texts, profile.batch)
    asking.score("prefill alone", texts[: profile.scored_alone], 1)
    asking.decode("decode alone", asked[: profile.decoded_alone], profile, 1)
    return ReferenceTrace(profile=profile, top_k=top_k, trace=asking.trace(texts), answers=answers)


def collect_candidate(
    endpoint: Endpoint,
    reference: ReferenceTrace,
    prompts: Sequence[str],
    *,
    stack: str,
    progress: Progress,
    batch: int | None = None,
) -> Trace:
    """The same of another stack, on the reference's answers; `prompts` are those it was asked.

    `batch` asks in another batch composition than the profile's.
    """
    profile = reference.profile
    together = batch or profile.batch
    asking = _Asking(endpoint=endpoint, stack=stack, top_k=reference.top_k, progress=progress)
    asked = asking.tokenized(prompts[: profile.prompts])
    asking.warm_up(asked)
    texts = [_text(prompt, answer) for prompt, answer in zip(asked, reference.answers, strict=True)]
    asking.decode("decode together", asked[: profile.answered], profile, together)
    asking.score("prefill together", texts, together)
    asking.score("prefill alone", texts[: profile.scored_alone], 1)
    asking.decode("decode alone", asked[: profile.decoded_alone], profile, 1)
    return asking.trace(texts)


def _text(prompt: Ids | ItemError, answer: Ids) -> Ids | ItemError:
    return prompt if isinstance(prompt, ItemError) else prompt + answer


@dataclass(kw_only=True)
class _Asking:
    """One collection on its way: passes are added as they are answered."""

    endpoint: Endpoint
    stack: str
    top_k: int
    progress: Progress
    passes: dict[PassName, tuple[Lists, ...]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    # Else the decoding of a prompt would begin with what the cache kept of its scoring.
    cache: str = field(default_factory=lambda: secrets.token_hex(8))

    def trace(self, texts: Sequence[Ids | ItemError]) -> Trace:
        return Trace(
            stack=self.stack,
            texts=tuple(
                "" if isinstance(text, ItemError) else sha256_bytes(canonical(list(text)))
                for text in texts
            ),
            passes=self.passes,
            seconds=self.seconds,
        )

    def tokenized(self, prompts: Sequence[str]) -> list[Ids | ItemError]:
        found: list[Ids | ItemError] = []
        with self._timed("tokenizing"), self._door() as door:
            for prompt in prompts:
                try:
                    found.append(tuple(door.tokens(prompt)))
                except ItemError as error:
                    found.append(error)
        return found

    def warm_up(self, asked: Sequence[Ids | ItemError]) -> None:
        """What is slow only once; a fault will show again where it counts."""
        usable = [ids for ids in asked if not isinstance(ids, ItemError)]
        with self._timed("warm-up"), self._door() as door:
            if usable:
                self._answer(door, lambda door: self._score(door, usable[0]))
                self._answer(door, lambda door: self._decode(door, usable[0], 2, "warm-up"))

    def score(self, name: PassName, texts: Sequence[Ids | ItemError], batch: int) -> None:
        self._ask(
            name,
            [_asked(text, lambda door, ids: self._score(door, ids)) for text in texts],
            batch,
        )

    def decode(
        self,
        name: PassName,
        prompts: Sequence[Ids | ItemError],
        profile: LogitProfile,
        batch: int,
    ) -> tuple[Lists, ...]:
        def one(door: Door, ids: Ids) -> Lists:
            return self._decode(door, ids, profile.answer_tokens, name)

        return self._ask(name, [_asked(prompt, one) for prompt in prompts], batch)

    def _score(self, door: Door, ids: Ids) -> Lists:
        body = {**self._body(ids), "max_tokens": 1, "prompt_logprobs": self.top_k}
        reply = door.post("/v1/completions", body, RankedPrompts).choices[0]
        _check_ids(reply.prompt_token_ids, ids)
        return scored_lists(reply, ids, self.top_k)

    def _decode(self, door: Door, ids: Ids, tokens: int, name: str) -> Lists:
        body = {
            **self._body(ids),
            "max_tokens": tokens,
            # Every answer has the same length, so that the batch stays as large as it was.
            "ignore_eos": True,
            "logprobs": self.top_k,
            "return_tokens_as_token_ids": True,
            "cache_salt": f"{self.cache} {name}",
        }
        reply = door.post("/v1/completions", body, DecodedTexts).choices[0]
        _check_ids(reply.prompt_token_ids, ids)
        return decoded_lists(reply, tokens, self.top_k)

    def _body(self, ids: Ids) -> dict[str, Any]:
        return {"prompt": list(ids), "temperature": 0, "return_token_ids": True}

    def _ask(self, name: PassName, questions: Sequence[Question], batch: int) -> tuple[Lists, ...]:
        """One answer per question, in order, `batch` in flight."""

        def answered(question: Question) -> Lists:
            with self._door() as door:
                return self._answer(door, question)

        with self._timed(name), ThreadPoolExecutor(max_workers=batch) as pool:
            futures = [pool.submit(answered, question) for question in questions]
            try:
                for done, future in enumerate(as_completed(futures), start=1):
                    future.result()
                    self.progress(f"{self.stack} {name}", done, len(futures))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self.passes[name] = tuple(future.result() for future in futures)
        return self.passes[name]

    def _answer(self, door: Door, question: Question) -> Lists:
        try:
            return question(door)
        except ItemError as error:
            return no_lists(str(error), self.top_k)

    @contextmanager
    def _door(self) -> Iterator[Door]:
        with direct_session() as session:
            yield Door(self.endpoint, session)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - started


def _asked(ids: Ids | ItemError, question: Callable[[Door, Ids], Lists]) -> Question:
    def ask(door: Door) -> Lists:
        if isinstance(ids, ItemError):
            raise ids
        return question(door, ids)

    return ask


def _check_ids(came: Sequence[int], sent: Ids) -> None:
    if tuple(came) != sent:
        raise ItemError("POST /v1/completions answered for other token ids than were sent")
