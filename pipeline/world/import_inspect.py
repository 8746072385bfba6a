"""inspect-ai 0.3.285: a log as JSON (`--log-format json`; `inspect log convert --to json` for .eval files)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.benchmark import Imported
from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.world.result_files import UNNAMED, FoundResult, held_to, json_document, kept_answer

EXPECTED = "a log of inspect-ai with status, eval.task, results and samples"
LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}  # correct, partial, incorrect, no answer
UNANSWERED = {"model_length": "the prompt is longer than the model's context"}


class Spec(BaseModel):
    task: str


class Results(BaseModel):
    total_samples: int


class Score(BaseModel):
    value: Any
    answer: str | None = None


class Choice(BaseModel):
    stop_reason: str = ""


class Usage(BaseModel):
    output_tokens: int = 0


class Output(BaseModel):
    choices: list[Choice] = []
    completion: str = ""
    usage: Usage | None = None


class Failure(BaseModel):
    message: str = ""


class Sample(BaseModel):
    id: int | str
    epoch: int
    input: Any
    output: Output = Output()
    scores: dict[str, Score] | None = None
    error: Failure | None = None


class Log(BaseModel):
    status: str
    eval: Spec
    results: Results | None = None
    samples: list[Sample] | None = None


def read_inspect(path: Path, spec: Imported) -> tuple[FoundResult, ...]:
    """Raises WorldError for a log of another task, and for one that did not end well or lacks samples."""
    log = held_to(Log, json_document(path, EXPECTED), str(path), EXPECTED)
    if log.eval.task.rpartition("/")[2] != spec.task:
        raise WorldError(
            f"is a log of {log.eval.task}", where=str(path), details=f"expected one of {spec.task}"
        )
    samples = log.samples or []
    if log.status != "success" or log.results is None or len(samples) != log.results.total_samples:
        total = log.results.total_samples if log.results else "an unknown number"
        raise WorldError(
            f"the evaluation ended as {log.status} with {len(samples)} of {total} samples",
            where=str(path),
            details="expected success and all samples",
            hint="run it again to its end (inspect eval-retry)",
        )
    if any(sample.epoch != 1 for sample in samples):
        raise WorldError(
            "has several epochs", where=str(path), details="expected one; a repeat is a file"
        )
    return tuple(_found(sample, spec, path) for sample in samples)


def _found(sample: Sample, spec: Imported, path: Path) -> FoundResult:
    choice = sample.output.choices[0] if sample.output.choices else Choice()
    error = "the sample failed" if sample.error else UNANSWERED.get(choice.stop_reason, "")
    score = None if error else _score(sample, spec.metric, path)
    return FoundResult(
        item=str(sample.id),
        prompt_sha256=sha256_bytes(repr(_without_ids(sample.input)).encode()),
        score=_number(score.value) if score else 0,
        answer=(UNNAMED if score.answer is None else kept_answer(score.answer)) if score else "",
        finish_reason="length" if choice.stop_reason == "max_tokens" else choice.stop_reason,
        tokens=sample.output.usage.output_tokens if sample.output.usage else 0,
        error=error,
        response_sha256=sha256_bytes(sample.output.completion.encode()),
    )


def _score(sample: Sample, scorer: str | None, path: Path) -> Score:
    scores = sample.scores or {}
    name = scorer or (next(iter(scores)) if len(scores) == 1 else None)
    if name is None or name not in scores:
        raise WorldError(
            f"sample {sample.id} has scores of {', '.join(sorted(scores)) or 'no scorer'}",
            where=str(path),
            details=f"expected {scorer or 'those of one scorer'}",
            hint="name the scorer as evaluator.imported.metric of the benchmark",
        )
    return scores[name]


def _without_ids(value: Any) -> Any:
    """Every run gives its messages new ids."""
    if isinstance(value, dict):
        return {key: _without_ids(inner) for key, inner in value.items() if key != "id"}
    return [_without_ids(inner) for inner in value] if isinstance(value, list) else value


def _number(value: Any) -> float:
    """NaN, which becomes an error, for what is neither a grade nor a number."""
    if isinstance(value, str):
        return LETTERS.get(value, math.nan)
    return float(value) if isinstance(value, bool | int | float) else math.nan
