"""The card of an imported record: what somebody else published, restated and marked as such. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath

from pipeline.cards.guide import (
    CONTAINER,
    PICTURE,
    Guide,
    base_url,
    body,
    extra_body,
    hub_weights,
    literals,
    serve_line,
)
from pipeline.cards.metadata import Indexed, Result, front_matter
from pipeline.imported_record import ImportedRecord, PublishedScore
from pipeline.run_arguments import command_line

PARTS = ("FlagScale", "FlagGems", "FlagTree", "FlagCX", "FlagEval")


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    title: str
    reference: str
    released: str
    difference: str


@dataclass(frozen=True, kw_only=True)
class PublishedSummary:
    """In points; the only thing that is computed here."""

    benchmarks: int
    lower: int  # on how many of them the released stack scores less
    largest_loss: str
    largest_loss_title: str


def imported_context(record: ImportedRecord) -> dict[str, object]:
    """Everything that the templates of templates/imported/ may print."""
    index = published_index(record)
    return {
        "about": record,
        "index": index,
        "chat": record.chat,
        "facts": None,  # nothing was measured
        "answer": None,
        "sights": (),
        "versions": published_versions(record),
        "front_matter": front_matter(index),
        "guide": imported_guide(record),
        "rows": published_rows(record),
        "summary": published_summary(record),
    }


def published_rows(record: ImportedRecord) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(
            title=score.title,
            reference=str(score.reference),
            released=str(score.released),
            difference=f"{_difference(score):+.2f}",
        )
        for score in record.scores
    )


def published_summary(record: ImportedRecord) -> PublishedSummary:
    worst = min(record.scores, key=_difference)
    return PublishedSummary(
        benchmarks=len(record.scores),
        lower=sum(_difference(score) < 0 for score in record.scores),
        largest_loss=f"{max(Decimal(0), -_difference(worst)):.2f}",
        largest_loss_title=worst.title,
    )


def published_versions(record: ImportedRecord) -> Mapping[str, str | None]:
    named = {part.name: part.version for part in record.parts}
    return {part: named.get(part) for part in PARTS}


def published_index(record: ImportedRecord) -> Indexed:
    return Indexed(
        hub_name=record.hub_name,
        license=record.license,
        languages=record.languages,
        base_model=record.base_model,
        modality=record.modality,
        tags=[record.chip, record.model, "flagscale", "flaggems"],
        results=[
            Result(
                title=score.title,
                dataset=score.benchmark,
                items=None,
                metric="score",
                metric_title=f"published score in points, {record.released}, not reproduced",
                value=float(score.released),
                source=f"published card of {record.source.repository}",
                source_url=record.source.link,
            )
            for score in record.scores
        ],
    )


def imported_guide(record: ImportedRecord) -> Guide:
    share = str(PurePosixPath(record.weights_path).parent)
    extra = extra_body(record.chat)
    messages = [
        {"role": "system", "content": record.system_prompt},
        {"role": "user", "content": record.prompt},
    ]
    return Guide(
        image=record.repository,
        is_pullable=True,
        registry_is_local=False,
        container=CONTAINER,
        share=share,
        weights=record.weights,
        weights_path=record.weights_path,
        hubs=hub_weights(record.weights, source="", revision=None),
        files=(),
        start=command_line(
            record.run,
            image=record.repository,
            name=CONTAINER,
            command=("sleep", "infinity"),
            volumes={share: share},
            is_removed_when_stopped=record.is_removed_when_stopped,
        ),
        serve=serve_line(record.command),
        log_path=None,
        base_url=base_url(record.port),
        patience_s=record.patience_s,
        served_name=record.served_name,
        port=record.port,
        prompt=record.prompt,
        messages=literals(messages),
        extra_body=json.dumps(extra) if extra else None,
        body=body(record.served_name, messages, extra),
        stream_body=body(record.served_name, messages, {**extra, "stream": True}),
        picture=None if record.modality == "text" else PICTURE,
        images_per_request=None,
        openai_version=None,
        versions={},
        max_model_len=record.context,
    )


def _difference(score: PublishedScore) -> Decimal:
    return score.released - score.reference
