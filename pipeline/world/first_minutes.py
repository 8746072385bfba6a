"""The first minutes of a served stack: from `docker run` to its first good answer, and what they were spent on."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Literal

from pipeline.model import Smoke
from pipeline.results import Start
from pipeline.world.openai import OpenAI
from pipeline.world.server import Served

# The last line of a phase in vLLM 0.24.0: v1/engine/core.py, v1/worker/gpu_model_runner.py, default_loader.py.
PHASES = {
    "imports": re.compile(r"Initializing a V1 LLM engine"),
    "loading": re.compile(r"Model loading took|Loading weights took"),
    "compiling and tuning": re.compile(
        r"init engine \(profile, create kv cache, warmup model\) took"
    ),
}
OPENING = "opening the server"
_WRITTEN = re.compile(r"\b(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\b")


def first_minutes(
    stack: str, served: Served, model: str, smoke: Smoke, kernels: Literal["kept", "none"]
) -> Start:
    """Asks one question of a server that just got ready."""
    ready_s = time.monotonic() - served.begun
    answer = OpenAI(served.base_url, model).chat(smoke.prompt, max_tokens=32)
    return Start(
        stack=stack,
        kernels=kernels,
        phases=phases(served.log_tail(10_000), served.begun_at, ready_s),
        ready_seconds=round(ready_s, 1),
        answered_seconds=round(time.monotonic() - served.begun, 1),
        answer=answer.error or repr(answer.text[:300]),
        is_good=smoke.expect in answer.text,
    )


def phases(log: str, begun: datetime, ready_s: float) -> dict[str, float]:
    """Seconds of each phase that the log shows the end of, in order, and of the rest until the server was ready.

    The log has whole seconds and no year; a line from before `docker run`, or after ready, belongs to no phase.
    """
    ends: dict[str, float] = {}
    for line in log.splitlines():
        for name, mark in PHASES.items():
            if mark.search(line) and (at := _seconds_after(begun, line)) is not None:
                ends[name] = min(at, ready_s)
    found, before = {}, 0.0
    for name in PHASES:
        if name in ends:
            found[name] = round(max(0.0, ends[name] - before), 1)
            before = max(before, ends[name])
    return {**found, OPENING: round(ready_s - before, 1)} if found else {}


def _seconds_after(begun: datetime, line: str) -> float | None:
    written = _WRITTEN.search(line)
    if written is None:
        return None
    month, day, hour, minute, second = map(int, written.groups())
    year = begun.year + (month < begun.month)  # a start around New Year
    passed = (datetime(year, month, day, hour, minute, second, tzinfo=UTC) - begun).total_seconds()
    return max(passed, 0.0) if passed > -1 else None
