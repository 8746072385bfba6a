"""When a question to a registry is asked again, and after which pause."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from email.utils import parsedate_to_datetime

import requests
import tenacity

# A registry that is down must be reported in less than 10 s: attempts x connect time + pauses.
ATTEMPTS = 3
# One that answers "not now" gets more time, but a command never hangs longer than this on one question.
ANSWERED_ATTEMPTS = 7
DEADLINE_S = 30.0
CONNECT_TIMEOUT_S = 2.0
PAUSE = tenacity.wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.3)
PASSING_FAULTS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def patiently(
    ask: Callable[[], requests.Response], sleep: Callable[[float], None], *, once: bool = False
) -> requests.Response:
    """Ask until the answer or fault is one that stays; else the last one."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_passing_fault)
        | tenacity.retry_if_result(is_passing_answer),
        stop=tenacity.stop_after_attempt(1)
        if once
        else _is_enough | tenacity.stop_before_delay(DEADLINE_S),
        wait=_pause_s,
        sleep=sleep,
    )
    try:
        return retrying(ask)
    except tenacity.RetryError as error:
        last: requests.Response = error.last_attempt.result()
        return last


def is_passing_answer(response: requests.Response) -> bool:
    return response.status_code == 429 or response.status_code >= 500


def is_passing_fault(error: BaseException) -> bool:
    return isinstance(error, PASSING_FAULTS) and not isinstance(error, requests.exceptions.SSLError)


class _Enough(tenacity.stop.stop_base):
    def __call__(self, state: tenacity.RetryCallState) -> bool:
        answered = state.outcome is not None and not state.outcome.failed
        return state.attempt_number >= (ANSWERED_ATTEMPTS if answered else ATTEMPTS)


_is_enough = _Enough()


def _pause_s(state: tenacity.RetryCallState) -> float:
    """Seconds to the next attempt: what Retry-After says, at least our own pause."""
    outcome = state.outcome
    if outcome is None or outcome.failed:
        return PAUSE(state)
    response: requests.Response = outcome.result()
    response.close()
    return max(PAUSE(state), retry_after_s(response))


def retry_after_s(response: requests.Response) -> float:
    header = response.headers.get("Retry-After", "")
    if header.isdigit():
        return float(header)
    until = date_of(header)
    return until.timestamp() - time.time() if until else 0.0


def date_of(header: str) -> datetime | None:
    """The time that an HTTP header gives; None if it gives none."""
    try:
        return parsedate_to_datetime(header)
    except ValueError:
        return None
