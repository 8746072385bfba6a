"""Front matter of a card: what the hubs index. Pure.

Fields: https://github.com/huggingface/hub-docs/blob/main/modelcard.md?plain=1
"""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from pipeline.cards.facts import Measured
from pipeline.model import License
from pipeline.results import BenchmarkVerdict

PIPELINE_TAGS: Mapping[str, str] = {
    "text": "text-generation",
    "vision": "image-text-to-text",
    "omni": "any-to-any",
}
# SPDX identifiers that the hubs know in lower case; any other one is `other`, with name and link.
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


def front_matter(measured: Measured) -> str:
    """YAML between two lines of dashes."""
    about, record = measured.about, measured.record
    task = PIPELINE_TAGS[about.modality]
    tags = ["flagos", "flagrelease", record.chip, record.model, "flagscale"]
    tags += ["flaggems"] if about.has_flaggems else []
    results = [_result(row, task, measured) for row in measured.accuracy.verdict.benchmarks]
    data = {
        **_license(about.license),
        "language": list(about.languages),
        "base_model": about.base_model,
        "pipeline_tag": task,
        "library_name": "vllm",
        "tags": tags,
        "model-index": [{"name": about.hub_name, "results": results}],
    }
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{text}---"


def _license(license_: License) -> dict[str, str]:
    identifier = license_.spdx.lower()
    if identifier in HUB_LICENSES:
        return {"license": identifier}
    return {"license": "other", "license_name": identifier, "license_link": license_.link}


def _result(row: BenchmarkVerdict, task: str, measured: Measured) -> dict[str, object]:
    """The score of the released stack on one benchmark."""
    about, released = measured.about, measured.about.released
    benchmark = about.benchmarks[row.benchmark]
    kind = benchmark.metric
    return {
        "task": {"type": task},
        "dataset": {"name": benchmark.title, "type": row.benchmark, "args": {"items": row.n}},
        "metrics": [
            {
                "type": kind,
                "name": f"{kind} in points, {about.stacks[released].title.en}",
                "value": round(100 * row.candidate_score, 2),
            }
        ],
        "source": {"name": f"release {measured.record.release}", "url": about.project_source},
    }
