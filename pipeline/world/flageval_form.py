"""What is sent to the FlagEval service and what it answers: the one place to correct when it wants another form.

What is sent is disputed. FlagRelease's written instruction posts one flat object; its monitor script reads the model's
name out of a list `eval_infos` of the same request. Both are in `submission`, and nowhere else; neither was tried
against the service, which could not be reached from where this was written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One stack to be evaluated. `name` is unique at the service: `<model>-<chip>-<stack>`."""

    name: str
    model: str
    eval_url: str  # …/v1/chat/completions, as the service reaches it
    tokenizer: str
    domain: Literal["NLP", "MM"]
    chip: str
    mode: str = "FlagRelease"
    num_concurrent: int = 1
    num_retry: int = 10
    batch_size: int = 1
    gen_kwargs: str = ""
    region: Literal["bj", "sz"] = "bj"
    user_id: int = 0
    dry_run: bool = False


def submission(wanted: Submission, layout: Literal["flat", "eval_infos"]) -> dict[str, Any]:
    """The body of POST /evaluation: the one place to correct when the service wants another form."""
    asked = {
        "eval_model": wanted.name,
        "model": wanted.model,
        "eval_url": wanted.eval_url,
        "tokenizer": wanted.tokenizer,
        "api_key": "EMPTY",
        "batch_size": wanted.batch_size,
        "num_concurrent": wanted.num_concurrent,
        "num_retry": wanted.num_retry,
        "gen_kwargs": wanted.gen_kwargs,
        "chip": wanted.chip,
    }
    around = {
        "domain": wanted.domain,
        "mode": wanted.mode,
        "region": wanted.region,
        "user_id": wanted.user_id,
        "dry_run": wanted.dry_run,
    }
    return {**around, **asked} if layout == "flat" else {**around, "eval_infos": [asked]}


class Accepted(BaseModel):
    request_id: str


class State(BaseModel):
    finished: bool
    status: str = ""
    datasets_progress: str = ""
    running_dataset: str = ""
    running_progress: str = ""


class DatasetScore(BaseModel):
    dataset: str
    status: str
    accuracy: float | None = None
    diff: float | None = None


class ModelScores(BaseModel):
    status: str
    details: list[DatasetScore] = []


class Scores(BaseModel):
    eval_results: dict[str, ModelScores]


class Done(BaseModel):
    """Nothing but its err_code is looked at."""
