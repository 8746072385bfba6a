"""What evalscope is told: its TaskConfig as data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.benchmark import Evalscope
from pipeline.world.endpoint import Endpoint

# general_mcq asks in Chinese unless it is told otherwise; the general tasks get the prompt of the named ones.
GENERAL_PROMPT = (
    "Answer the following multiple choice question. The last line of your response should be of the following format:"
    " 'ANSWER: [LETTER]' (without quotes) where [LETTER] is one of {letters}. Think step by step before answering.\n\n"
    "{question}\n\n{choices}"
)
RETRIES = 2
RETRY_WAIT_S = 5
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, kw_only=True)
class Sampling:
    concurrency: int
    seed: int
    temperature: float


def task_config(
    spec: Evalscope,
    endpoint: Endpoint,
    sampling: Sampling,
    *,
    data: Path,
    work: Path,
) -> dict[str, Any]:
    """One benchmark, one pass of one stack. `work` belongs to it alone."""
    return {
        "model": endpoint.model,
        "api_url": f"{endpoint.base_url}/v1",
        "api_key": "EMPTY",
        "eval_type": "openai_api",
        "datasets": [spec.task],
        "dataset_args": {spec.task: _dataset(spec, data)},
        "eval_batch_size": sampling.concurrency,
        "generation_config": {
            "temperature": sampling.temperature,
            "seed": sampling.seed,
            "max_tokens": spec.max_tokens,
            "timeout": endpoint.timeout_s,
            "retries": RETRIES,
            "retry_interval": RETRY_WAIT_S,
            "stream": False,
        },
        "work_dir": str(work),
        "no_timestamp": True,
        "use_cache": None,
        "ignore_errors": False,  # a failed request must not vanish from the denominator
        "judge": {"strategy": "rule"},
        "collect_perf": False,
        "seed": sampling.seed,
    }


def _dataset(spec: Evalscope, data: Path) -> dict[str, Any]:
    arguments: dict[str, Any] = {"local_path": str(data)}
    if spec.subsets:
        arguments["subset_list"] = list(spec.subsets)
    if spec.variant is not None:
        arguments["extra_params"] = {"dataset_format": spec.variant}
    if spec.task in ("general_mcq", "general_vmcq"):
        arguments["prompt_template"] = GENERAL_PROMPT
    return arguments


def environment(home: Path) -> Mapping[str, str]:
    """Nothing is fetched, and caches of data sets lie where the run is, not in the user's home."""
    return {
        **OFFLINE,
        "HF_HOME": str(home / "huggingface"),
        "MODELSCOPE_CACHE": str(home / "modelscope"),
        "EVALSCOPE_CACHE": str(home / "evalscope"),
        "NO_PROXY": "*",  # between us and a server we started
    }
