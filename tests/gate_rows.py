"""Item rows for tests of the gate, from tables of what each stack scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.accuracy_result import ItemRow
from pipeline.canonical import sha256_bytes
from pipeline.policy import Gate

STACKS = ("float32", "bfloat16")
Scores = Sequence[Sequence[float]]  # item, run


def gate_of(**changes: object) -> Gate:
    gate = Gate(alpha=0.04, margin=0.08, power_margins=1, looks=(1, 2, 4), concurrency=1, seed=0)
    return gate.model_copy(update=changes)


def row(
    benchmark: str, item: str, stack: str, repeat: int, score: float, **more: object
) -> ItemRow:
    plain = ItemRow(
        benchmark=benchmark,
        item=item,
        cluster=item,
        stack=stack,
        repeat=repeat,
        seed=repeat,
        score=score,
        prompt_sha256=sha256_bytes(f"{benchmark} {item} {repeat}".encode()),
        answer=f"{score}",
        finish_reason="stop",
        tokens=10,
        error="",
        response_sha256=sha256_bytes(b"reply"),
    )
    return plain.model_copy(update=more)


def rows_of_scores(
    benchmark: str,
    reference: Scores,
    candidate: Scores,
    clusters: Mapping[int, str] | None = None,
) -> tuple[ItemRow, ...]:
    """One row for each stack, item and run."""
    return tuple(
        row(
            benchmark,
            f"{benchmark}-{number:04}",
            stack,
            repeat,
            score,
            **({"cluster": clusters[number]} if clusters else {}),
        )
        for stack, table in zip(STACKS, (reference, candidate), strict=True)
        for number, runs in enumerate(table)
        for repeat, score in enumerate(runs)
    )
