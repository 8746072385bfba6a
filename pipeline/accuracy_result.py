"""What the accuracy stage found: comparisons of log-probabilities, items, verdicts. Part of the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pipeline.logit_policy import LogitLimits, LogitProfile
from pipeline.operator_evidence import StackOperators
from pipeline.result_source import ImportedRuns
from pipeline.results import FileHash, Frozen, Start


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
