"""The record: what happened to one cell in one release.

It is the only source of a card. `RecordStore` writes it after every stage so that a killed run resumes from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from pipeline.accuracy_result import AccuracyResult
from pipeline.benchmark import Benchmark
from pipeline.canonical import canonical, write_whole
from pipeline.chip import Compiler, Exclusion, Run, SkippedOperators
from pipeline.errors import UsageError
from pipeline.matrix_values import Problem, ServeValue, Text
from pipeline.model import Chat, License, Size, Weights
from pipeline.policy import Gate
from pipeline.rehearsal import RehearseResult
from pipeline.results import (
    AttestResult,
    BuildResult,
    CardResult,
    Frozen,
    PerformanceResult,
    PromoteResult,
    PublishResult,
    RenderResult,
    WeightsResult,
)
from pipeline.smoke_result import SmokeResult
from pipeline.stage_names import AFTER_THE_SEAL as AFTER_THE_SEAL
from pipeline.stage_names import STAGES as STAGES
from pipeline.stage_names import StageName as StageName
from pipeline.waiver import Waiver

SCHEMA: Final = 1

Status = Literal["passed", "failed", "inconclusive", "invalid", "not_run", "not_applicable"]
WAIVABLE: tuple[Status, ...] = ("inconclusive", "not_run")  # of accuracy; never failed, never smoke

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
    rehearse: StageRecord[RehearseResult] | None = None
    card: StageRecord[CardResult] | None = None
    attest: StageRecord[AttestResult] | None = None
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
    compiler: Compiler | None = None  # None: the one that torch brings


class ReleaseKey(Frozen):
    """The public key that the attestations of a target's releases are verified with."""

    path: str  # in the project's repository
    pem: str
    fingerprint: str  # SHA-256 of its DER form, in hex


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
    # Records of releases before 2026.11.25 have none of these.
    size: Size | None = None
    chat: Chat = Chat()
    sdk: str | None = None
    driver: str | None = None  # that upstream built and checked the chip's software on
    cards: int = 1  # that serving takes
    known_problems: tuple[Problem, ...] = ()  # of the chip, then of the model
    skipped_operators: SkippedOperators | None = None
    target: str | None = None  # of the matrix; None: made before it was kept
    is_attested: bool = False  # False: made before attestations were
    release_key: ReleaseKey | None = None  # None: nobody signs
    image_alias: str | None = None  # FlagRelease's long image name, where all its facts are known
    waiver: Waiver | None = None  # of the cell, whether it is needed or not


class ImageIdentity(Frozen):
    """The config digest names the image; a registry adds the manifest digest."""

    config_digest: str
    manifest_digest: str | None
    base: str
    published: bool

    @classmethod
    def of(cls, built: BuildResult) -> ImageIdentity:
        return cls(
            config_digest=built.model.config_digest,
            manifest_digest=built.model.manifest_digest,
            base=built.images[0].manifest_digest or "node",
            published=built.model.manifest_digest is not None,
        )


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

    @property
    def sealed(self) -> Record:
        """As it is attested: without the stages that come after."""
        none: dict[str, None] = dict.fromkeys(AFTER_THE_SEAL)
        return self.model_copy(update={"stages": self.stages.model_copy(update=none)})

    @property
    def waiver(self) -> Waiver | None:
        """Who takes an accuracy upon himself that was not decided; None: it was, or nobody does."""
        stage = self.stages.accuracy
        return self.about.waiver if (stage.status if stage else "not_run") in WAIVABLE else None

    def not_passed(self, names: Iterable[StageName]) -> Iterator[str]:
        """A line for each of these stages that is not passed with a result; not for an accuracy that is waived."""
        for name in names:
            stage = self.stages.get(name)
            if name == "accuracy" and self.waiver:
                continue
            if stage is None or stage.status != "passed":
                yield f"{name}: {stage.status if stage else 'not_run'}"
            elif stage.result is None:
                yield f"{name}: passed, but its result is missing"


def record_bytes(record: Record) -> bytes:
    return canonical(record.model_dump(mode="json")) + b"\n"


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

    def releases(self, chip: str, model: str) -> tuple[str, ...]:
        """Names of the releases with a record of the cell."""
        return tuple(path.parts[-4] for path in self._of_cell(chip, model))

    def of_cell(self, chip: str, model: str) -> tuple[Record, ...]:
        """All records of a cell, newest first by the time of their last written stage."""
        paths = self._of_cell(chip, model)
        newest = sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        return tuple(read_record(path) for path in newest)

    def _of_cell(self, chip: str, model: str) -> Iterator[Path]:
        """Without a pattern: one would be compiled for each of a hundred cells."""
        for release in self.root.iterdir() if self.root.is_dir() else ():
            path = release / chip / model / "record.json"
            if path.exists():
                yield path


def read_record(path: Path) -> Record:
    return parse_record(path.read_bytes(), str(path))


def parse_record(content: bytes, where: str) -> Record:
    try:
        return Record.model_validate_json(content)
    except ValueError as error:
        raise UsageError(
            "this record cannot be read",
            where=where,
            details=str(error),
            hint="it was changed, or written by another version of the pipeline; move the file away:"
            " nox -s card fetches that of a public release, nox -s release starts the cell anew",
        ) from error
