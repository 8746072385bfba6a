"""Front matter of a card: what the hubs index. Pure.

Hugging Face's fields: https://github.com/huggingface/hub-docs/blob/main/modelcard.md?plain=1. ModelScope reads
`license`, `language`, `base_model` and `tags` likewise, and has `tasks` and `frameworks` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from pipeline.accuracy_result import BenchmarkVerdict
from pipeline.cards.facts import Measured
from pipeline.model import License

PIPELINE_TAGS: Mapping[str, str] = {
    "text": "text-generation",
    "vision": "image-text-to-text",
    "omni": "any-to-any",
}
# The same in ModelScope's words; it has none for pictures and sound together.
TASKS: Mapping[str, str] = {
    "text": "text-generation",
    "vision": "multimodal-dialogue",
    "omni": "multimodal-dialogue",
}
# SPDX identifiers that both hubs know in lower case; any other one is `other`, with name and link.
HUB_LICENSES = frozenset(
    {
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-nc-4.0",
        "cc-by-sa-4.0",
        "cc0-1.0",
        "mit",
        "mpl-2.0",
    }
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The score of the released stack on one benchmark, in points."""

    title: str
    dataset: str
    items: int | None  # None: not known
    metric: str
    metric_title: str
    value: float
    source: str
    source_url: str


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """What hubs index of a card."""

    hub_name: str
    license: License
    languages: Sequence[str]
    base_model: str
    modality: str
    tags: Sequence[str]
    results: Sequence[Result]


def front_matter(indexed: Indexed) -> str:
    """YAML between two lines of dashes."""
    task = PIPELINE_TAGS[indexed.modality]
    results = [_result(result, task) for result in indexed.results]
    index = [{"name": indexed.hub_name, "results": results}] if results else []
    data = {
        **_license(indexed.license),
        "language": list(indexed.languages),
        "base_model": indexed.base_model,
        "pipeline_tag": task,
        "library_name": "vllm",
        "tasks": [TASKS[indexed.modality]],
        "frameworks": ["pytorch"],
        "tags": ["flagos", "flagrelease", *indexed.tags],
        **({"model-index": index} if index else {}),
    }
    text = yaml.dump(
        data, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True, width=10_000
    )
    return f"---\n{text}---"


def measured_index(measured: Measured) -> Indexed:
    about, record = measured.about, measured.record
    tags = [record.chip, record.model, "flagscale"]
    return Indexed(
        hub_name=about.hub_name,
        license=about.license,
        languages=about.languages,
        base_model=about.base_model,
        modality=about.modality,
        tags=[*tags, "flaggems"] if about.has_flaggems else tags,
        results=[_measured_result(row, measured) for row in measured.judged],
    )


def _measured_result(row: BenchmarkVerdict, measured: Measured) -> Result:
    about = measured.about
    benchmark = about.benchmarks[row.benchmark]
    return Result(
        title=benchmark.title,
        dataset=row.benchmark,
        items=row.n,
        metric=benchmark.metric,
        metric_title=f"{benchmark.metric} in points, {about.stacks[about.released].title.en}",
        value=round(100 * row.candidate_score, 2),
        source=f"release {measured.record.release}",
        source_url=about.project_source,
    )


def _license(license_: License) -> dict[str, str]:
    identifier = license_.spdx.lower()
    if identifier in HUB_LICENSES:
        return {"license": identifier}
    name = identifier.removeprefix("licenseref-")
    return {"license": "other", "license_name": name, "license_link": license_.link}


def _result(result: Result, task: str) -> dict[str, object]:
    items = {} if result.items is None else {"args": {"items": result.items}}
    return {
        "task": {"type": task},
        "dataset": {"name": result.title, "type": result.dataset, **items},
        "metrics": [{"type": result.metric, "name": result.metric_title, "value": result.value}],
        "source": {"name": result.source, "url": result.source_url},
    }
