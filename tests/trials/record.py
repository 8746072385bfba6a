"""What the planted-fault trial measured, as it is committed under records/trials/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.accuracy_result import LogitVerdict
from pipeline.canonical import canonical, sha256_bytes, sha256_file
from pipeline.results import Frozen
from tests.projects import ROOT
from tests.trials.stacks import LIBRARY, MEASURING, SERVING, Kind

RECORD = ROOT / "records/trials/planted-faults.json"


class Row(Frozen):
    """One candidate as it was asked once."""

    case: str
    kind: Kind
    says: str
    fault: str
    against: str  # the stack it is compared with
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
    code_sha256: str  # of all that decides the numbers: see code_sha256()
    prompts_sha256: str  # texts that a release does not ask
    reference_seconds: Mapping[str, float]  # of its own passes
    rows: tuple[Row, ...]


def code_sha256() -> str:
    """Of the planted library, of what asks and judges, and of what we put into the image."""
    files = (LIBRARY, *MEASURING, *SERVING)
    return sha256_bytes(
        canonical([[str(path.relative_to(ROOT)), sha256_file(path)] for path in files])
    )


def read_record(path: Path = RECORD) -> PlantedFaults:
    return PlantedFaults.model_validate_json(path.read_bytes())
