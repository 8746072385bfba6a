"""The FlagEval evaluation service: submit, progress, result, compare, stop, resume.

It calls our endpoint itself, so that must be reachable from it, and it gives scores of whole data sets, not of items:
what it says is advisory and never a verdict. Its address comes from the environment (FLAGOS_EVAL_PLATFORM).

Forms are in `flageval_form.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import requests
import tenacity
from pydantic import BaseModel, ValidationError

from pipeline.errors import StageRefusedError, UsageError, WorldError
from pipeline.world.flageval_form import (
    Accepted,
    Done,
    ModelScores,
    Scores,
    State,
    Submission,
    submission,
)

ADDRESS_VARIABLE = "FLAGOS_EVAL_PLATFORM"
ATTEMPTS = 3
POLLS_S = (*(5 * (30,)), *(10 * (60,)), *(15 * (120,)))  # as FlagRelease polls: about 40 minutes
OTHER = f"see that {ADDRESS_VARIABLE} names the service itself, and not a proxy or something else"
ENDINGS = {"S": "success", "F": "failed", "C": "cancelled", "OOR": "out of retries"}


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
        found = self._scores("/evaldiffs", {"request_id": request_id})
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
        return self._scores("/evaluation_diffs", {"request_ids": list(request_ids)})

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

    def _scores(self, path: str, body: Mapping[str, Any]) -> Mapping[str, ModelScores]:
        found = self._ask("GET", path, body, Scores).eval_results
        if not found:
            raise WorldError(
                "the FlagEval service names no model in its answer",
                where=f"GET {self.address}{path}",
                details=str(body),
                hint="see with `progress` whether the evaluation has begun",
            )
        return found

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
        # It may have been accepted all the same, and would be evaluated twice.
        again = "" if attempts > 1 else "; look there before you submit again"
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
                hint=f"see that {ADDRESS_VARIABLE} is right and the service reachable" + again,
            ) from error
        if answer.status_code != requests.codes.ok:
            raise WorldError(
                f"the FlagEval service answered HTTP {answer.status_code}",
                where=where,
                details=answer.text[:500],
                hint=OTHER + again,
            )
        return _held(answer, shape, where, OTHER + again)

    def _sent(self, method: str, path: str, body: Mapping[str, Any]) -> requests.Response:
        # The service takes its parameters as a JSON body, for GET too.
        url = self.address + path
        return requests.request(method, url, json=body, timeout=self.timeout_s)


def _held(answer: requests.Response, shape: type[Shape], where: str, hint: str) -> Shape:
    try:
        content = answer.json()
        code = content.get("err_code", 0)
    except (ValueError, AttributeError) as error:
        raise WorldError(
            "the FlagEval service answered no JSON object",
            where=where,
            details=answer.text[:500],
            hint=hint,
        ) from error
    if code != 0:
        raise WorldError(
            f"the FlagEval service refused with err_code {code}",
            where=where,
            details=str(content.get("err_msg", ""))[:500],
            hint="a refused submission may mean the other layout: --layout eval_infos",
        )
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise WorldError(
            f"the FlagEval service answered in another form: {place}: {first['msg']}",
            where=where,
            hint=hint,
        ) from error
