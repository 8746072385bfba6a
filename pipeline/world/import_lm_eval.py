"""lm-eval 0.4.13: `samples_<task>_<date>.jsonl`, written with --log_samples. One line a document and filter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.benchmark import Imported
from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.world.result_files import FoundResult, json_lines, kept_answer

EXPECTED = "a sample of lm-eval with doc_id, filter, metrics and their values"


class Sample(BaseModel):
    """The value of every metric is a field of its own, under the metric's name."""

    model_config = ConfigDict(extra="allow")

    doc_id: int
    filter: str
    metrics: list[str]
    prompt_hash: str
    resps: list[Any]
    filtered_resps: list[Any]


def read_lm_eval(path: Path, spec: Imported) -> tuple[FoundResult, ...]:
    """Raises WorldError when it is another task's file, or filter or metric are not the one that is meant."""
    if not path.name.startswith(f"samples_{spec.task}_"):
        raise WorldError(
            f"is not the samples of {spec.task}",
            where=str(path),
            details=f"expected samples_{spec.task}_<date>.jsonl",
        )
    samples = list(json_lines(path, Sample, EXPECTED))
    chosen = _one(spec.filter, {sample.filter for sample in samples}, "filter", path)
    metric = _one(spec.metric, {m for sample in samples for m in sample.metrics}, "metric", path)
    return tuple(_found(sample, metric, path) for sample in samples if sample.filter == chosen)


def _one(wanted: str | None, there: set[str], what: str, path: Path) -> str:
    if wanted is None and len(there) == 1:
        return next(iter(there))
    if wanted is not None and wanted in there:
        return wanted
    raise WorldError(
        f"has the {what}s {', '.join(sorted(there)) or 'none'}",
        where=str(path),
        details=f"expected {wanted or 'one of them'}",
        hint=f"name one as evaluator.imported.{what} of the benchmark",
    )


def _found(sample: Sample, metric: str, path: Path) -> FoundResult:
    value = (sample.model_extra or {}).get(metric)
    if not isinstance(value, int | float):
        raise WorldError(
            f"document {sample.doc_id} has no number as {metric}",
            where=str(path),
            details=f"expected {EXPECTED}",
        )
    return FoundResult(
        item=str(sample.doc_id),
        prompt_sha256=sample.prompt_hash,
        score=float(value),
        answer=_answer(sample.filtered_resps),
        is_written=not _by_likelihood(sample.filtered_resps),
        response_sha256=sha256_bytes(repr(sample.resps).encode()),
    )


def _answer(found: Sequence[Any]) -> str:
    """Written text, or the position of the likeliest choice: there each is [log-likelihood, whether it is greedy]."""
    if _by_likelihood(found):
        likelihoods = [float(each[0]) for each in found]
        return str(likelihoods.index(max(likelihoods)))
    return kept_answer(found[0]) if found else ""


def _by_likelihood(found: Sequence[Any]) -> bool:
    return bool(found) and all(isinstance(each, list | tuple) and each for each in found)
