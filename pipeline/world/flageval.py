"""The FlagEval evaluation service: submit, progress, result, compare, stop, resume.

It calls our endpoint itself, so that must be reachable from it, and it gives scores of whole data sets, not of items:
what it says is advisory and never a verdict. Its address comes from the environment (FLAGOS_EVAL_PLATFORM).

What is sent is disputed. FlagRelease's written instruction posts one flat object; its monitor script reads the model's
name out of a list `eval_infos` of the same request. Both are in `submission`, and nowhere else; neither was tried
against the service, which could not be reached from where this was written.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import requests
import tenacity
from pydantic import BaseModel, ValidationError

from pipeline.errors import StageRefusedError, UsageError, WorldError

ADDRESS_VARIABLE = "FLAGOS_EVAL_PLATFORM"
ATTEMPTS = 3
POLLS_S = (*(5 * (30,)), *(10 * (60,)), *(15 * (120,)))  # as FlagRelease polls: about 40 minutes
ENDINGS = {"S": "success", "F": "failed", "C": "cancelled", "OOR": "out of retries"}


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


Shape = TypeVar("Shape", bound=BaseModel)


class FlagEval:
    """One service. Everything that it answers wrongly, or not at all, is a WorldError."""

    def __init__(self, address: str, *, timeout_s: float = 30, retry_wait_s: float = 2) -> None:
        self.address = address.rstrip("/")
        self.timeout_s = timeout_s
        self.retry_wait_s = retry_wait_s

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> FlagEval:
        address = environment.get(ADDRESS_VARIABLE, "")
        if not address.startswith(("http://", "https://")):
            raise UsageError(
                "the address of the FlagEval service is not known",
                where=ADDRESS_VARIABLE,
                hint=f"export {ADDRESS_VARIABLE}=http://<host>:<port>",
            )
        return cls(address)

    def submit(self, wanted: Submission, *, layout: Literal["flat", "eval_infos"] = "flat") -> str:
        """The id of the request. Sent once: sent again, it could be evaluated twice."""
        return self._post("/evaluation", submission(wanted, layout), Accepted, 1).request_id

    def progress(self, request_id: str, domain: Literal["NLP", "MM"]) -> State:
        body = {"request_id": request_id, "domain": domain}
        return self._post("/evaluation_progress", body, State)

    def result(self, request_id: str) -> Mapping[str, ModelScores]:
        """By model. Raises StageRefusedError when one of them did not end well: its scores are of what was answered."""
        found = self._ask("GET", "/evaldiffs", {"request_id": request_id}, Scores).eval_results
        for model, scores in found.items():
            statuses = [scores.status, *(one.status for one in scores.details)]
            bad = [status for status in statuses if status != "S"]
            if bad or not scores.details:
                ending = ENDINGS.get(bad[0], bad[0]) if bad else "without scores"
                raise StageRefusedError(
                    f"the evaluation of {model} ended: {ending}",
                    where=f"FlagEval request {request_id}",
                    hint="the service has its log; stop it, or resume it once the cause is gone",
                )
        return found

    def compare(self, request_ids: Sequence[str]) -> Mapping[str, ModelScores]:
        """The reference's request first."""
        body = {"request_ids": list(request_ids)}
        return self._ask("GET", "/evaluation_diffs", body, Scores).eval_results

    def stop(self, request_id: str) -> None:
        self._post("/stop_evaluation", {"request_id": request_id}, Done)

    def resume(self, request_id: str) -> None:
        self._post("/resume_evaluation", {"request_id": request_id}, Done)

    def wait(
        self,
        request_id: str,
        domain: Literal["NLP", "MM"],
        *,
        say: Callable[[str], None],
        sleep: Callable[[float], None] = time.sleep,
        polls_s: Sequence[float] = POLLS_S,
    ) -> Mapping[str, ModelScores]:
        """The result, once there is one. Raises WorldError when it takes longer than all polls."""
        told = ""
        for pause_s in polls_s:
            state = self.progress(request_id, domain)
            if state.finished:
                return self.result(request_id)
            seen = f"{state.datasets_progress} {state.running_dataset} {state.running_progress}"
            if seen != told:
                say(f"FlagEval: {' '.join(seen.split())}")
                told = seen
            sleep(pause_s)
        raise WorldError(
            f"not finished after {len(polls_s)} looks in {sum(polls_s) / 60:.0f} minutes",
            where=f"FlagEval request {request_id}",
            hint="it goes on there; ask again later, or stop it",
        )

    def _post(
        self, path: str, body: Mapping[str, Any], shape: type[Shape], attempts: int = ATTEMPTS
    ) -> Shape:
        return self._ask("POST", path, body, shape, attempts)

    def _ask(
        self,
        method: Literal["GET", "POST"],
        path: str,
        body: Mapping[str, Any],
        shape: type[Shape],
        attempts: int = ATTEMPTS,
    ) -> Shape:
        where = f"{method} {self.address}{path}"
        try:
            answer = tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(requests.ConnectionError),
                stop=tenacity.stop_after_attempt(attempts),
                wait=tenacity.wait_fixed(self.retry_wait_s),
                reraise=True,
            )(self._sent, method, path, body)
        except requests.RequestException as error:
            raise WorldError(
                f"the FlagEval service does not answer: {type(error).__name__}",
                where=where,
                hint=f"see that {ADDRESS_VARIABLE} is right and the service reachable",
            ) from error
        if answer.status_code != requests.codes.ok:
            raise WorldError(
                f"the FlagEval service answered HTTP {answer.status_code}",
                where=where,
                details=answer.text[:500],
            )
        return _held(answer, shape, where)

    def _sent(self, method: str, path: str, body: Mapping[str, Any]) -> requests.Response:
        # The service takes its parameters as a JSON body, for GET too.
        url = self.address + path
        return requests.request(method, url, json=body, timeout=self.timeout_s)


def _held(answer: requests.Response, shape: type[Shape], where: str) -> Shape:
    try:
        content = answer.json()
        code = content.get("err_code", 0)
    except (ValueError, AttributeError) as error:
        raise WorldError("the FlagEval service answered no JSON object", where=where) from error
    if code != 0:
        raise WorldError(
            f"the FlagEval service refused with err_code {code}",
            where=where,
            details=str(content.get("err_msg", ""))[:500],
            hint="a refused submission may mean the other layout: see pipeline/world/flageval.py",
        )
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WorldError(
            f"the FlagEval service answered in another form: {place}: {first['msg']}", where=where
        ) from error
