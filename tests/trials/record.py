"""What the planted-fault trial measured, as it is committed under records/trials/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.results import Frozen, LogitVerdict
from tests.projects import ROOT
from tests.trials.stacks import Kind

RECORD = ROOT / "records/trials/planted-faults.json"


class Row(Frozen):
    """One candidate, or the reference against itself in another batch."""

    case: str
    kind: Kind
    says: str
    fault: str
    batch: int  # requests in flight where texts go together
    start_seconds: float  # from `docker run` to a healthy server
    verdict_seconds: float  # from a ready server to the verdict, without warm-up
    warm_up_seconds: float
    calls: Mapping[str, int]  # of planted operators, and results that the fault spoiled
    verdict: LogitVerdict


class PlantedFaults(Frozen):
    trial_schema: Literal[1] = 1
    finished: str  # UTC, ISO 8601
    node: str
    image: str  # config digest
    weights_sha256: str
    library_sha256: str  # of tests/planted/library.py
    reference: str
    reference_seconds: Mapping[str, float]  # of its own passes
    rows: tuple[Row, ...]


def read_record(path: Path = RECORD) -> PlantedFaults:
    return PlantedFaults.model_validate_json(path.read_bytes())
