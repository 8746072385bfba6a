"""What the hubs' own readers must find in the front matter of a card. Pure.

Hugging Face's is `huggingface_hub.ModelCardData`. ModelScope has none in its client: its server reads the same YAML,
and `license`, `tasks` and `frameworks` take the words of `modelscope` (a test compares them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import yaml

from pipeline.cards.page import Page

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

FIELDS = (
    *("license", "language", "base_model", "pipeline_tag", "library_name", "tags"),
    *("tasks", "frameworks"),
)
OF_SCORES = ("model_name", "eval_results")
ROUNDING = 0.0051  # points; what two printed digits may hide


class Points(Protocol):
    """Scores of one benchmark in points."""

    @property
    def title(self) -> str: ...
    @property
    def released(self) -> float: ...


def front_matter(page: Page, scores: Sequence[Points]) -> Iterator[tuple[int, str]]:
    try:
        data = _read(page.text.partition("\n---\n")[0])
    except (yaml.YAMLError, ValueError, TypeError, KeyError) as error:
        yield 1, f"huggingface_hub cannot read it: {error}"
        return
    for field in (*FIELDS, *OF_SCORES) if scores else FIELDS:
        if not getattr(data, field, None):
            yield 1, f"no {field}"
    if data.license == "other" and not (data.license_name and data.license_link):
        yield 1, "license `other` needs license_name and license_link"
    yield from ((1, text) for text in _score_faults(data, scores))


def _score_faults(data: ModelCardData, scores: Sequence[Points]) -> Iterator[str]:
    printed = {result.dataset_name: result.metric_value for result in data.eval_results or ()}
    expected = {score.title: score.released for score in scores}
    for title in sorted(printed.keys() | expected.keys()):
        if title not in printed or title not in expected:
            yield f"model-index: {title} is only in {'the record' if title in expected else 'it'}"
        elif abs(float(printed[title]) - expected[title]) > ROUNDING:
            yield f"model-index: {title} has {printed[title]}, the record {expected[title]}"


@lru_cache
def _read(head: str) -> ModelCardData:
    """What `ModelCard` does with a card, on libyaml. Cached: both languages have the same front matter."""
    from huggingface_hub import ModelCardData

    if not head.startswith("---\n"):
        raise ValueError("there is none")
    return ModelCardData(**yaml.load(head, yaml.CSafeLoader))
