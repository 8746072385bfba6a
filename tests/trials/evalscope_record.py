"""What the evalscope trial saw, as it is committed under records/trials/."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipeline.canonical import sha256_file
from pipeline.results import Frozen
from tests.projects import ROOT

RECORD = ROOT / "records/trials/evalscope.json"
HELD = (
    "pipeline/world/evalscope.lock",
    "pipeline/world/evalscope_driver.py",
    "pipeline/world/evalscope_task.py",
    "tests/trials/evalscope_data.py",
)


class TaskRun(Frozen):
    """One pass of one stack over a small data folder of ours."""

    task: str
    stack: str
    items: int
    right: int
    errors: int
    seconds: float


class EvalscopeTrial(Frozen):
    trial_schema: Literal[1] = 1
    finished: str  # UTC, ISO 8601
    evalscope: str
    environment_seconds: float | None  # None: it was there already
    files: dict[str, str]  # SHA-256 of what the trial stands for
    runs: tuple[TaskRun, ...]


def held_files() -> dict[str, str]:
    return {path: sha256_file(ROOT / path) for path in HELD}


def read_record(path: Path = RECORD) -> EvalscopeTrial:
    return EvalscopeTrial.model_validate_json(path.read_bytes())
