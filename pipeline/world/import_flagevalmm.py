"""FlagEvalMM 0.3.5: `<task>_evaluated.json`, one JSON array of predictions with their scores.

Its own accuracy leaves rejected answers out of the denominator, so that a stack which errors can score higher. Here
they are errors that score 0. OCRBench and MM-Vet v2 write `score`, all other tasks of the card `correct`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.benchmark import Imported
from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.world.result_files import FoundResult, json_items, kept_answer

EXPECTED = "a prediction of FlagEvalMM with question_id, question, answer and correct (or score)"
REJECTED = (
    "Error code",
    "Can not answer because of",
    "Input data may contain inappropriate content",
)


class Usage(BaseModel):
    completion_tokens: int = 0


class Evaluated(BaseModel):
    question_id: str | int
    question: str
    answer: Any
    raw_answer: Any = None
    correct: bool | float | None = None
    score: float | None = None
    val_success: bool = True  # MM-Vet v2: whether the judge gave a score
    usage: Usage | None = None


def read_flagevalmm(path: Path, spec: Imported) -> tuple[FoundResult, ...]:
    """Raises WorldError for a file that is not this task's, not whole, or has items without a score."""
    wanted = f"{spec.task}_evaluated.json"
    if path.name != wanted:
        raise WorldError(
            f"is not the result of {spec.task}",
            where=str(path),
            details=f"expected {wanted}; {spec.task}_result.json has totals only",
        )
    return tuple(_found(path, one) for one in json_items(path, Evaluated, EXPECTED))


def _found(path: Path, one: Evaluated) -> FoundResult:
    given = one.answer if one.raw_answer is None else one.raw_answer
    is_rejected = isinstance(given, str) and given.startswith(REJECTED)
    value = one.score if one.correct is None else float(one.correct)
    if value is None and not is_rejected:
        raise WorldError(
            f"question {one.question_id} has neither correct nor score",
            where=str(path),
            details=f"expected {EXPECTED}",
            hint=f"{path.name.replace('_evaluated', '')} has answers only: run the evaluation too",
        )
    error = "the request was rejected" if is_rejected else ""
    return FoundResult(
        item=str(one.question_id),
        prompt_sha256=sha256_bytes(one.question.encode()),
        score=value or 0,
        answer="" if is_rejected else kept_answer(one.answer),
        tokens=one.usage.completion_tokens if one.usage else 0,
        error=error if one.val_success else "the judge gave no score",
        response_sha256=sha256_bytes(str(given).encode()),
    )
