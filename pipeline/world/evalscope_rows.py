"""From what evalscope 1.14.1 writes to rows: predictions and reviews are joined by key, never by line.

Its files are in order of completion. It writes an overflow of the context as an ordinary answer, which its rules then
call wrong; here it is an error, as is a sample that it left out or gave no usable score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from pipeline.accuracy_result import ItemRow
from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.world.benchmark_data import Item
from pipeline.world.result_files import json_lines, kept_answer

Key = tuple[str, int, int]  # subset, sample_id, generation_index
FINISH = {"max_tokens": "length"}  # others are OpenAI's own words
UNANSWERED = {
    "model_length": "the prompt is longer than the model's context",
    "content_filter": "the request was refused",
    "unknown": "the answer has no reason to end",
}


class Listed(BaseModel):
    """One sample that evalscope is going to ask, as `evalscope_driver.py list` writes it."""

    subset: str
    sample_id: int
    choices: int
    prompt_sha256: str
    images_sha256: str


class Message(BaseModel):
    content: str | list[object] | None = None


class Choice(BaseModel):
    stop_reason: str
    message: Message


class Usage(BaseModel):
    output_tokens: int = 0


class Output(BaseModel):
    choices: list[Choice] = []
    usage: Usage | None = None
    error: str | None = None


class Prediction(BaseModel):
    index: int
    model_output: Output


class Score(BaseModel):
    value: dict[str, float]
    status: str = "success"
    main_score_name: str | None = None
    extracted_prediction: str | None = None


class SampleScore(BaseModel):
    sample_id: int
    generation_index: int | None = None
    score: Score


class Review(BaseModel):
    index: int
    sample_score: SampleScore


def listed_items(name: str, path: Path, max_tokens: int) -> tuple[Item, ...]:
    """Items as the gate knows them: hashes instead of questions, and choices without text."""
    listed = json_lines(path, Listed, "a sample listed by evalscope_driver.py")
    return tuple(
        Item(
            benchmark=name,
            item=_item_id(sample.subset, sample.sample_id),
            task="choice" if sample.choices else "number",
            prompt=sample.prompt_sha256,
            expected="",
            choices=("",) * sample.choices,
            max_tokens=max_tokens,
            cluster=sample.images_sha256[:16],
            is_text=False,
        )
        for sample in listed
    )


def rows(
    items: Sequence[Item], work: Path, task: str, *, stack: str, seed: int, repeat: int = 0
) -> tuple[ItemRow, ...]:
    """One row per item, in the order of `items`. Raises WorldError for a damaged file and for an answer to nothing."""
    predictions = _by_key(_read(work, "predictions", task, Prediction))
    reviews = _by_key(_read(work, "reviews", task, Review))
    known = {item.item for item in items}
    for subset, sample, generation in (*predictions, *reviews):
        if generation != 0 or _item_id(subset, sample) not in known:
            raise WorldError(
                f"evalscope answered {_item_id(subset, sample)}, generation {generation}, which was not asked",
                where=str(work),
                hint="the folder holds the results of another task or another version of the data",
            )
    return tuple(_row(item, predictions, reviews, stack, seed, repeat) for item in items)


def _row(
    item: Item,
    predictions: Mapping[Key, Prediction],
    reviews: Mapping[Key, Review],
    stack: str,
    seed: int,
    repeat: int,
) -> ItemRow:
    key = _key_of(item)
    prediction, review = predictions.get(key), reviews.get(key)
    output = prediction.model_output if prediction else Output()
    choice = output.choices[0] if output.choices else None
    score = review.sample_score.score if review else None
    error = _error(output, choice, score)
    return ItemRow(
        benchmark=item.benchmark,
        item=item.item,
        cluster=item.cluster or item.item,
        stack=stack,
        repeat=repeat,
        seed=seed,
        score=0 if error or score is None else _main_value(score),
        prompt_sha256=item.prompt,
        answer="" if error or score is None else kept_answer(score.extracted_prediction),
        finish_reason=FINISH.get(choice.stop_reason, choice.stop_reason) if choice else "",
        tokens=output.usage.output_tokens if output.usage else 0,
        error=error,
        response_sha256=sha256_bytes(repr(choice.message.content if choice else "").encode()),
    )


def _error(output: Output, choice: Choice | None, score: Score | None) -> str:
    if choice is None:
        return output.error or "evalscope has no answer to it"
    if choice.stop_reason in UNANSWERED:
        return UNANSWERED[choice.stop_reason]
    if score is None:
        return "evalscope has no score for it"
    if score.status != "success" or not score.value:
        return f"evalscope could not score it: {score.status}"
    value = _main_value(score)
    return "" if 0 <= value <= 1 else f"evalscope gave it the score {value:g}"


def _main_value(score: Score) -> float:
    """The first of its values is the main one unless it names another."""
    name = score.main_score_name
    return score.value[name] if name in score.value else next(iter(score.value.values()))


Keyed = TypeVar("Keyed", Prediction, Review)


def _read(
    work: Path, kind: str, task: str, shape: type[Keyed]
) -> Iterator[tuple[str, Path, Keyed]]:
    """Of every file `<kind>/<model>/<task>_<subset>.jsonl`: the subset, the file, its objects."""
    for path in sorted((work / kind).glob(f"*/{task}_*.jsonl")):
        subset = path.stem.removeprefix(f"{task}_")
        for one in json_lines(path, shape, f"one of evalscope 1.14.1's {kind}"):
            yield subset, path, one


def _by_key(found: Iterable[tuple[str, Path, Keyed]]) -> dict[Key, Keyed]:
    by_key: dict[Key, Keyed] = {}
    for subset, path, one in found:
        score = one.sample_score if isinstance(one, Review) else None
        generation = (score.generation_index or 0) if score else 0
        key = (subset, score.sample_id if score else one.index, generation)
        if key in by_key:
            raise WorldError(
                f"sample {key[1]}, generation {key[2]}, is there twice",
                where=str(path),
                hint="two runs wrote into one folder; remove it and run again",
            )
        by_key[key] = one
    return by_key


def _item_id(subset: str, sample: int) -> str:
    return f"{subset}/{sample}"


def _key_of(item: Item) -> Key:
    subset, _, sample = item.item.rpartition("/")
    return subset, int(sample), 0
