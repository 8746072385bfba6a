from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from pipeline.accuracy_result import LogitVerdict
from pipeline.errors import WorldError
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import LogitLimits, LogitProfile
from pipeline.trace_file import read_reference, read_trace, write_reference, write_trace
from pipeline.traces import Lists, ReferenceTrace, Trace
from pipeline.world.endpoint import Endpoint
from pipeline.world.teacher import collect_candidate, collect_reference, short_and_long
from tests.fakes_model import ToyModel
from tests.fakes_server import Behaviour, StandInServer, free_port

Result = TypeVar("Result")

PROFILE = LogitProfile(
    name="toy",
    prompts=6,
    answered=4,
    scored_alone=3,
    decoded_alone=2,
    answer_tokens=5,
    batch=4,
    min_positions=40,
)
PROMPTS = ["a cat", "the dog sleeps", "why?", "one two three", "it rains", "zebra"]
TOP_K = 20


def quiet(*_: object) -> None:
    pass


def endpoint_of(url: str) -> Endpoint:
    return Endpoint(base_url=url, model="toy", timeout_s=5, retry_wait_s=0.01)


def asked(
    collect: Callable[[Endpoint], Result], toy: ToyModel | None = None, **behaviour: Any
) -> tuple[Result, list[tuple[str, dict[str, Any]]]]:
    with StandInServer(Behaviour(toy=toy or ToyModel(), **behaviour)) as server:
        return collect(endpoint_of(server.url)), server.behaviour.requests


def reference_of(toy: ToyModel | None = None, **behaviour: Any) -> ReferenceTrace:
    def collect(endpoint: Endpoint) -> ReferenceTrace:
        return collect_reference(
            endpoint, PROFILE, PROMPTS, stack="float32", top_k=TOP_K, progress=quiet
        )

    return asked(collect, toy, **behaviour)[0]


@pytest.fixture(scope="module")
def reference() -> ReferenceTrace:
    return reference_of()


def candidate_of(reference: ReferenceTrace, toy: ToyModel | None = None, **behaviour: Any) -> Trace:
    def collect(endpoint: Endpoint) -> Trace:
        return collect_candidate(endpoint, reference, PROMPTS, stack="flagos", progress=quiet)

    return asked(collect, toy, **behaviour)[0]


def judged(reference: ReferenceTrace, toy: ToyModel, **behaviour: Any) -> LogitVerdict:
    return judge_logits(reference, candidate_of(reference, toy, **behaviour), LogitLimits())


def test_the_lists_are_those_of_the_model(reference: ReferenceTrace) -> None:
    toy = ToyModel()
    ids = toy.tokens(PROMPTS[0])
    answer, _ = toy.decoded(ids, 5, TOP_K)
    text = [*ids, *answer]

    scored = reference.trace.passes["prefill together"][0]
    decoded = reference.trace.passes["decode together"][0]

    rows = np.array([toy.logprobs(tuple(text[:end])) for end in range(1, len(text))])
    assert reference.answers[0] == tuple(answer)
    assert decoded.generated.tolist() == answer
    assert scored.tokens.tolist() == np.argsort(-rows, kind="stable")[:, :TOP_K].tolist()
    assert np.allclose(scored.logprobs, -np.sort(-rows)[:, :TOP_K], atol=1e-5)
    assert np.allclose(scored.text_logprobs, rows[np.arange(len(rows)), text[1:]], atol=1e-5)
    assert np.allclose(decoded.logprobs, scored.logprobs[-5:], atol=1e-5)
    assert decoded.tokens.tolist() == scored.tokens[-5:].tolist()


def test_both_stacks_score_the_same_ids_and_the_first_prompts_have_an_answer(
    reference: ReferenceTrace,
) -> None:
    _, requests = asked(
        lambda endpoint: collect_candidate(
            endpoint, reference, PROMPTS, stack="flagos", progress=quiet
        ),
        ToyModel(noise=0.5),
    )

    scored = [body for _, body in requests if "prompt_logprobs" in body]
    texts = [
        [*ToyModel().tokens(prompt), *answer]
        for prompt, answer in zip(PROMPTS, reference.answers, strict=True)
    ]
    assert [len(answer) for answer in reference.answers] == [5, 5, 5, 5, 0, 0]
    together, alone = scored[1:7], scored[7:]  # the first one warms up
    assert sorted(body["prompt"] for body in together) == sorted(texts)
    assert [body["prompt"] for body in alone] == texts[:3]
    assert scored[1] == {
        "model": "toy",
        "prompt": scored[1]["prompt"],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": TOP_K,
        "return_token_ids": True,
    }


def test_decoding_asks_for_ids_a_fixed_length_and_a_cache_of_its_own(
    reference: ReferenceTrace,
) -> None:
    _, requests = asked(
        lambda endpoint: collect_candidate(
            endpoint, reference, PROMPTS, stack="flagos", progress=quiet
        )
    )

    decoded = [body for _, body in requests if body.get("logprobs") and body["max_tokens"] == 5]
    assert len(decoded) == PROFILE.answered + PROFILE.decoded_alone
    assert len({body["cache_salt"] for body in decoded}) == 2
    assert {key: decoded[0][key] for key in decoded[0] if key not in {"prompt", "cache_salt"}} == {
        "model": "toy",
        "max_tokens": 5,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": TOP_K,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def test_a_stack_that_computes_the_same_passes(reference: ReferenceTrace) -> None:
    found = judged(reference, ToyModel())

    assert found.status == "pass"
    assert [row.kl_max for row in found.comparisons] == [0.0] * 4
    assert [row.texts for row in found.comparisons] == [6, 3, 4, 2]
    assert {name for name in found.seconds if name.startswith("candidate")} == {
        "candidate tokenizing",
        "candidate warm-up",
        "candidate decode together",
        "candidate prefill together",
        "candidate prefill alone",
        "candidate decode alone",
    }


@pytest.mark.parametrize(("noise", "status"), [(0.02, "pass"), (0.08, "warn"), (0.5, "fail")])
def test_a_stack_is_judged_by_its_distance(
    reference: ReferenceTrace, noise: float, status: str
) -> None:
    assert judged(reference, ToyModel(noise=noise)).status == status


def test_the_measured_divergence_is_near_the_full_one(reference: ReferenceTrace) -> None:
    noisy = ToyModel(noise=0.5)
    text = [*ToyModel().tokens(PROMPTS[0]), *reference.answers[0]]
    contexts = [tuple(text[:end]) for end in range(1, len(text))]
    p, q = (np.array([toy.logprobs(one) for one in contexts]) for toy in (ToyModel(), noisy))
    full = float((np.exp(p) * (p - q)).sum(axis=1).mean())

    found = judged(replace(reference, trace=_only_first(reference.trace)), noisy)

    assert found.comparisons[0].kl_mean is not None
    assert 0.5 * full < found.comparisons[0].kl_mean < full


def _only_first(trace: Trace) -> Trace:
    return replace(trace, passes={name: lists[:1] for name, lists in trace.passes.items()})


def test_a_nan_of_the_candidate_is_a_failed_request_and_fails(reference: ReferenceTrace) -> None:
    """vLLM cannot write it as JSON and answers HTTP 500."""
    spoiled = ToyModel(spoil=lambda context, row: row * np.nan if len(context) == 9 else row)

    found = judged(reference, spoiled)

    assert found.status == "fail"
    assert "(POST /v1/completions answered HTTP 500)" in found.sentence


def test_minus_infinity_as_vllm_writes_it_fails(reference: ReferenceTrace) -> None:
    def spoil(_: tuple[int, ...], row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.where(row == row.max(), row, -9999.0)

    found = judged(reference, ToyModel(spoil=spoil))

    assert found.status == "fail"
    assert found.comparisons[0].candidate_faults.sentinel > 0


def test_another_tokenizer_is_invalid(reference: ReferenceTrace) -> None:
    found = judged(reference, ToyModel(first_id=1))

    assert found.sentence == (
        "invalid: log-probabilities cannot be compared: "
        "the stacks have other token ids for 6 of 6 texts"
    )


def test_a_server_that_answers_for_other_ids_than_were_sent_is_not_believed(
    reference: ReferenceTrace,
) -> None:
    class Losing(ToyModel):
        def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            short = {**body, "prompt": body["prompt"][:-1]} if path != "/tokenize" else body
            return super().reply(path, short)

    found = judged(reference, Losing())

    assert found.status == "fail"
    assert found.comparisons[0].candidate_faults.first_error == (
        "POST /v1/completions answered for other token ids than were sent"
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            lambda choice: choice["prompt_logprobs"].pop(),
            "POST /v1/completions did not score every token that was sent",
        ),
        (
            lambda choice: choice.pop("prompt_logprobs"),
            "POST /v1/completions answered in another shape: missing at choices.0.prompt_logprobs",
        ),
    ],
)
def test_a_reply_that_is_not_whole_is_a_failed_request(
    reference: ReferenceTrace, change: Callable[[dict[str, Any]], object], error: str
) -> None:
    class Broken(ToyModel):
        def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            reply = super().reply(path, body)
            if "prompt_logprobs" in body:
                change(reply["choices"][0])
            return reply

    lists = candidate_of(reference, Broken()).passes["prefill together"]

    assert {one.error for one in lists} == {error}


def test_an_answer_that_ends_early_is_a_failed_request(reference: ReferenceTrace) -> None:
    class Short(ToyModel):
        def decoded(
            self, ids: list[int], tokens: int, top_k: int
        ) -> tuple[list[int], dict[str, Any]]:
            return super().decoded(ids, tokens - 1, top_k)

    lists = candidate_of(reference, Short()).passes["decode together"]

    assert {one.error for one in lists} == {
        "POST /v1/completions decoded 4 tokens, 5 were asked for"
    }


def test_tokens_written_as_text_are_a_failed_request(reference: ReferenceTrace) -> None:
    class Texts(ToyModel):
        def decoded(
            self, ids: list[int], tokens: int, top_k: int
        ) -> tuple[list[int], dict[str, Any]]:
            answer, logprobs = super().decoded(ids, tokens, top_k)
            top = [
                {f" {name}": value for name, value in row.items()}
                for row in logprobs["top_logprobs"]
            ]
            return answer, {**logprobs, "top_logprobs": top}

    lists = candidate_of(reference, Texts()).passes["decode alone"]

    assert {one.error for one in lists} == {
        "POST /v1/completions wrote tokens as text, ids were asked for"
    }


def test_a_reference_without_answers_still_gives_a_trace_that_cannot_judge() -> None:
    spoiled = ToyModel(spoil=lambda _, row: row * np.nan)

    reference = reference_of(spoiled)

    assert reference.answers == ((),) * 6
    assert judged(reference, ToyModel()).status == "invalid"


def test_a_broken_connection_is_tried_again(reference: ReferenceTrace) -> None:
    trace = candidate_of(reference, broken_connections=2)

    assert judge_logits(reference, trace, LogitLimits()).status == "pass"


def test_a_server_that_is_gone_stops_the_collection(reference: ReferenceTrace) -> None:
    nobody = endpoint_of(f"http://127.0.0.1:{free_port()}")

    with pytest.raises(WorldError, match="the server stopped answering"):
        collect_candidate(nobody, reference, PROMPTS, stack="flagos", progress=quiet)


def test_prompts_together_are_in_flight_together_and_alone_they_are_not() -> None:
    gate = threading.Barrier(PROFILE.batch, timeout=10)
    alone: list[int] = []

    class Watching(ToyModel):
        def reply(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            if "decode together" in body.get("cache_salt", ""):
                gate.wait()  # for as many as the batch holds, else the test fails
            if "decode alone" in body.get("cache_salt", ""):
                alone.append(1 + len(alone))
                time.sleep(0.01)
                assert alone.pop() == 1
            return super().reply(path, body)

    reference = reference_of(Watching())

    answers = [one for passed in reference.trace.passes.values() for one in passed]
    assert {one.error for one in answers} == {""}


def same(one: Lists, other: Lists) -> bool:
    arrays = ("tokens", "logprobs", "text_logprobs", "generated")
    return one.error == other.error and all(
        np.array_equal(getattr(one, name), getattr(other, name), equal_nan=True) for name in arrays
    )


def test_traces_come_back_from_disk_as_they_were(reference: ReferenceTrace, tmp_path: Path) -> None:
    spoiled = ToyModel(spoil=lambda context, row: row * np.nan if len(context) == 9 else row)
    trace = candidate_of(reference, spoiled)
    write_trace(tmp_path / "flagos.npz", trace, key="k")
    write_reference(tmp_path / "float32.npz", reference, key="k")

    again = read_trace(tmp_path / "flagos.npz", key="k")
    known = read_reference(tmp_path / "float32.npz", key="k")

    assert again is not None
    assert known is not None
    for one, other in ((trace, again), (reference.trace, known.trace)):
        assert (one.stack, one.texts, one.seconds) == (other.stack, other.texts, other.seconds)
        assert one.passes.keys() == other.passes.keys()
        for name, lists in one.passes.items():
            assert all(map(same, lists, other.passes[name]))
    assert (known.profile, known.top_k, known.answers) == (PROFILE, TOP_K, reference.answers)
    assert judge_logits(known, again, LogitLimits()) == judge_logits(
        reference, trace, LogitLimits()
    )


def test_a_file_of_another_key_or_kind_or_half_of_one_is_not_read(
    reference: ReferenceTrace, tmp_path: Path
) -> None:
    path = tmp_path / "float32.npz"
    assert read_reference(path, key="k") is None
    write_reference(path, reference, key="k")
    assert read_reference(path, key="other") is None
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read_reference(path, key="k") is None
    path.write_bytes(b"{}")
    assert read_reference(path, key="k") is None
    write_trace(path, reference.trace, key="k")
    assert read_reference(path, key="k") is None


def test_a_file_holds_no_token_of_a_prompt(reference: ReferenceTrace, tmp_path: Path) -> None:
    write_reference(tmp_path / "float32.npz", reference, key="k")

    with np.load(tmp_path / "float32.npz") as archive:
        head = archive["head"].tobytes().decode()
    assert not any(prompt in head or str(ToyModel().tokens(prompt)) in head for prompt in PROMPTS)


def test_short_and_long_texts_take_turns() -> None:
    texts = [chr(97 + number % 26) * (number + 1) for number in range(100)]

    chosen = short_and_long([*texts, *texts, "", "x" * 5000], 10, least_characters=1)

    assert len(set(chosen)) == 10
    assert all(len(text) <= 50 for text in chosen[::2])
    assert all(75 < len(text) <= 100 for text in chosen[1::2])
    assert chosen == short_and_long(texts[::-1], 10, least_characters=1)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_few_texts_are_all_taken(count: int) -> None:
    texts = ["a", "bb", "ccc", "dddd", "e", "ff", "ggg"]
    assert len(short_and_long(texts, count, least_characters=1)) == min(count, 7)


def test_sums_of_a_dozen_characters_are_not_taken() -> None:
    assert short_and_long(["16-3-4 =", "a" * 39, "b" * 40], 3) == ["b" * 40]
