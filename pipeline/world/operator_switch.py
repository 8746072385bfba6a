"""Other operators in a running server, without a restart: vLLM's development endpoint calls the workers' hook.

The server must have been started with VLLM_SERVER_DEV_MODE=1, which a release never is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import requests
from pydantic import BaseModel, ValidationError

from pipeline.errors import StageRefusedError, WorldError
from pipeline.world.openai import direct_session

DEV_MODE = {"VLLM_SERVER_DEV_MODE": "1"}
HINT = "probe with restarted engines instead: --restart"


class _Evidence(BaseModel):
    """What a worker's hook answers (images/serving/flagrelease_serving/operators.py), as far as it is needed here."""

    registered: frozenset[str]
    calls: Mapping[str, int] = {}


class _Reply(BaseModel):
    results: list[_Evidence]  # one a worker


def switch_operators(
    base_url: str, *, on: Collection[str], off: Collection[str], timeout_s: float
) -> int:
    """Turn operators on and off in every worker, let no cached prefix outlive it; how many calls were counted so far.

    Raises WorldError when the server is gone or fails, StageRefusedError when it has no such switch or a worker is not
    in exactly that state.
    """
    body = {"method": "switch_operators", "args": ["", ",".join(sorted(off))]}
    answer = _post(f"{base_url}/collective_rpc", {**body, "timeout": timeout_s}, timeout_s)
    try:
        workers = _Reply.model_validate_json(answer.content).results
    except ValidationError as error:
        raise StageRefusedError(
            "the server's workers have no operator switch",
            where=f"{base_url}/collective_rpc",
            details=answer.text[:300],
            hint=HINT,
        ) from error
    for rank, worker in enumerate(workers):
        if wrong := worker.registered ^ frozenset(on):
            raise StageRefusedError(
                f"worker {rank} has other operators on than it was told: {', '.join(sorted(wrong)[:10])}",
                where=f"{base_url}/collective_rpc",
                hint=HINT,
            )
    _post(f"{base_url}/reset_prefix_cache", {}, timeout_s)
    return sum(sum(worker.calls.values()) for worker in workers)


def _post(url: str, body: Mapping[str, Any], timeout_s: float) -> requests.Response:
    try:
        with direct_session() as session:
            answer = session.post(url, json=body, timeout=timeout_s)
    except requests.RequestException as error:
        raise WorldError(
            "the server stopped answering while its operators were switched",
            where=url,
            details=f"{type(error).__name__}: {error}",
            hint="the end of the server's log says why",
        ) from error
    if answer.status_code >= requests.codes.server_error:
        raise WorldError(
            f"the operators could not be switched: HTTP {answer.status_code}",
            where=url,
            details=answer.text[:300],
            hint="the end of the server's log says why",
        )
    if answer.status_code != requests.codes.ok:
        raise StageRefusedError(
            f"the operators could not be switched: HTTP {answer.status_code}",
            where=url,
            details=answer.text[:300],
            hint=HINT,
        )
    return answer
