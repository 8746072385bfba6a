"""What a card says of accuracy: scores, verdict and data, as it prints them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from pipeline.accuracy_result import BenchmarkVerdict, LogitComparison, LogitVerdict, Verdict
from pipeline.cards.facts import Measured
from pipeline.cards.numbers import p_value, points, signed_points

# A set is small when a loss of this many points stays possible even if no answer changes.
SMALL_SET_POINTS = 1


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One benchmark; scores, bounds and margins in points."""

    title: str
    reference: str
    released: str
    difference: str
    interval: str
    margin: str  # as it was applied
    fixed_margin: str  # as it was set; a low score of the reference makes it smaller
    guessing: str
    p_harm: str
    n: int
    runs: int  # of every question (K)
    lost: int
    gained: int
    cut: str  # answers at their limit, reference / released
    unreadable: str  # answers without what was looked for, likewise
    one_item: str  # what one question is worth
    blind: str  # the loss that stays possible even if no answer changes
    is_small: bool
    has_power: bool
    is_advisory: bool
    verdict: Literal["pass", "fail", "no_power", "undecided"]


def score_rows(measured: Measured) -> tuple[ScoreRow, ...]:
    verdict, titles = measured.verdict, measured.about.benchmarks
    if verdict is None:
        return ()
    gate = measured.about.gate
    return tuple(
        _score_row(row, titles[row.benchmark].title, verdict.alpha, gate.margin_of(row.benchmark))
        for row in verdict.benchmarks
    )


def _score_row(row: BenchmarkVerdict, title: str, alpha: float, fixed_margin: float) -> ScoreRow:
    blind = _blind_share(row.n, alpha)
    return ScoreRow(
        title=title,
        reference=points(row.reference_score),
        released=points(row.candidate_score),
        difference=signed_points(row.difference),
        # No-break spaces: in a narrow column browsers part the two bounds.
        interval=f"{signed_points(row.lower_bound, 1)}\u00a0…\u00a0{signed_points(row.upper_bound, 1)}",
        margin=points(row.margin, 1),
        fixed_margin=points(fixed_margin, 1),
        guessing=points(row.chance, 1),
        p_harm=p_value(row.p_harm),
        n=row.n,
        runs=row.runs,
        cut=f"{row.troubles_reference.truncated} / {row.troubles_candidate.truncated}",
        unreadable=f"{row.troubles_reference.unreadable} / {row.troubles_candidate.unreadable}",
        is_advisory=row.tier == "advisory",
        lost=row.lost,
        gained=row.gained,
        one_item=points(1 / row.n),
        blind=points(blind, 1),
        is_small=100 * blind >= SMALL_SET_POINTS,
        has_power=row.has_power,
        verdict=_word(row),
    )


def _blind_share(n: int, alpha: float) -> float:
    """Tango's one-sided loss bound when none of n items changes: z² / (n + z²)."""
    z = NormalDist().inv_cdf(1 - alpha)
    return z * z / (n + z * z)


def _word(row: BenchmarkVerdict) -> Literal["pass", "fail", "no_power", "undecided"]:
    if row.status != "inconclusive":
        return row.status
    return "undecided" if row.has_power else "no_power"


@dataclass(frozen=True, kw_only=True)
class VerdictSummary:
    """What the sentence of the verdict says, for both languages to say it."""

    benchmarks: int  # that decide: critical, and with power
    items: int  # of them
    margins: str
    widest: str  # the largest loss that is not ruled out
    widest_title: str
    confidence: str  # per cent, one-sided
    harm_level: str  # of the test that fails a candidate
    failed_reference: int
    failed_released: int


def verdict_summary(measured: Measured) -> VerdictSummary | None:
    verdict = measured.verdict
    if verdict is None:
        return None
    rows = deciding(verdict)
    widest = min(rows, key=lambda row: row.lower_bound)
    margins = sorted({row.margin for row in rows})
    return VerdictSummary(
        benchmarks=len(rows),
        items=sum(row.n for row in rows),
        margins=" – ".join(
            points(margin, 1) for margin in dict.fromkeys((margins[0], margins[-1]))
        ),
        widest=points(max(0.0, -widest.lower_bound), 1),
        widest_title=measured.about.benchmarks[widest.benchmark].title,
        confidence=f"{100 * (1 - verdict.alpha):.3g}",
        harm_level=f"{verdict.harm_alpha or verdict.alpha:.2g}",
        failed_reference=sum(row.errors_reference for row in verdict.benchmarks),
        failed_released=sum(row.errors_candidate for row in verdict.benchmarks),
    )


def deciding(verdict: Verdict) -> tuple[BenchmarkVerdict, ...]:
    """The benchmarks that carry a verdict; a pass has at least one, older records may have none."""
    chosen = [row for row in verdict.benchmarks if row.has_power and row.tier == "critical"]
    return tuple(chosen) or verdict.benchmarks


@dataclass(frozen=True, kw_only=True)
class PooledSummary:
    """All questions that decide, taken together; in points."""

    benchmarks: int
    n: int
    difference: str
    bound: str
    margin: str | None  # None: shown, not judged


def pooled_summary(measured: Measured) -> PooledSummary | None:
    pooled = measured.verdict.pooled if measured.verdict else None
    if pooled is None:
        return None
    return PooledSummary(
        benchmarks=len(pooled.benchmarks),
        n=pooled.n,
        difference=signed_points(pooled.difference),
        bound=signed_points(pooled.lower_bound),
        margin=None if pooled.margin is None else points(pooled.margin, 1),
    )


@dataclass(frozen=True, kw_only=True)
class PreGateSummary:
    """The pre-gate on the texts that were scored together; divergences in nats."""

    status: str
    texts: int
    positions: int
    kl_mean: str
    kl_p99: str
    floor_mean: str
    floor_p99: str
    agreement: str  # per cent of positions with the same first token
    widest_margin: str | None  # None: no position has another first token
    reasons: tuple[str, ...]


def pregate_summary(measured: Measured) -> PreGateSummary | None:
    found = measured.accuracy.logits if measured.accuracy else None
    row = _scored_together(found) if found else None
    if found is None or row is None:
        return None
    margin = row.widest_margin
    return PreGateSummary(
        status=found.status,
        texts=row.texts,
        positions=row.positions,
        kl_mean=f"{row.kl_mean or 0:.1e}",
        kl_p99=f"{row.kl_p99 or 0:.1e}",
        floor_mean=f"{found.floor.mean:.1e}",
        floor_p99=f"{found.floor.p99:.1e}",
        agreement=f"{100 * (row.top1_agreement or 0):.1f}",
        widest_margin=None if margin is None else f"{margin:.2f}",
        reasons=found.reasons,
    )


def _scored_together(found: LogitVerdict) -> LogitComparison | None:
    rows = (row for row in found.comparisons if row.name == "prefill together")
    return next(rows, None)


@dataclass(frozen=True, kw_only=True)
class DataRow:
    """The file that a benchmark's questions come from."""

    title: str
    package: str
    path: str
    sha256: str
    license: str


def data_rows(measured: Measured) -> tuple[DataRow, ...]:
    data = measured.accuracy.data if measured.accuracy else ()
    hashes = {file.path: file.sha256 for file in data}
    return tuple(
        DataRow(
            title=benchmark.title,
            package=benchmark.data_origin,
            path=benchmark.data_path,
            sha256=hashes[benchmark.data_path],
            license=benchmark.license,
        )
        for row in measured.judged
        for benchmark in (measured.about.benchmarks[row.benchmark],)
    )
