"""An imported record: what somebody else's card says of a cell. Nothing in it was measured or reproduced by us."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

import yaml

from pipeline.chip import Run
from pipeline.errors import UsageError
from pipeline.matrix_values import Text
from pipeline.model import Chat, License, Weights
from pipeline.results import Frozen

RELEASE = "imported"  # stands where a record has the name of its release
FILE = "imported.yaml"


class Source(Frozen):
    repository: str  # of the card, on the hubs
    link: str  # where the copy lies that was read
    file: str  # of it
    commit: str
    date: str  # of the copy, ISO 8601


class PublishedScore(Frozen):
    """One row of the card's table; scores in points, as printed."""

    title: str
    benchmark: str  # of matrix.yaml
    reference: Decimal
    released: Decimal


class PublishedItem(Frozen):
    title: Text
    value: str


class PublishedPart(Frozen):
    """A part of FlagOS, as the card describes it; `says` in our words."""

    name: str
    version: str | None = None  # None: the card names none
    says: Text | None = None


class ImportedRecord(Frozen):
    record_schema: Literal[1]
    cell: str
    chip: str
    model: str
    source: Source
    title: str
    modality: Literal["text", "vision", "omni"]
    license: License
    base_model: str
    languages: tuple[str, ...]
    chip_title: Text
    project_source: str
    hub_name: str
    says: tuple[Text, ...]  # of the release as a whole
    reference: str  # titles of its stacks
    released: str
    environment: tuple[PublishedItem, ...]
    parts: tuple[PublishedPart, ...]
    repository: str  # of the image, as the card names it
    weights: Weights
    weights_path: str
    run: Run
    is_removed_when_stopped: bool
    command: tuple[str, ...]  # that serves, inside the container
    served_name: str
    port: int
    system_prompt: str
    prompt: str
    anythingllm: Text  # what the card says of it that ours does not
    scores: tuple[PublishedScore, ...]
    # Not of the card.
    context: int  # tokens
    context_source: str
    patience_s: int  # how long to wait for the server
    chat: Chat = Chat()
    doubts: tuple[Text, ...]


def read_imported(path: Path) -> ImportedRecord:
    try:
        return ImportedRecord.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(
            "this imported record cannot be read",
            where=str(path),
            details=str(error),
            hint="pipeline/imported_record.py says what it holds",
        ) from error
