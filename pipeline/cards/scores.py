"""What a card says of accuracy: scores, verdict and data, as it prints them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from pipeline.cards.facts import Measured
from pipeline.cards.numbers import p_value, points, signed_points
from pipeline.results import BenchmarkVerdict, Verdict

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
    margin: str
    guessing: str
    p_harm: str
    n: int
    lost: int
    gained: int
    one_item: str  # what one question is worth
    blind: str  # the loss that stays possible even if no answer changes
    is_small: bool
    has_power: bool
    verdict: Literal["pass", "fail", "no_power", "undecided"]


def score_rows(measured: Measured) -> tuple[ScoreRow, ...]:
    verdict = measured.accuracy.verdict
    titles = measured.about.benchmarks
    return tuple(
        _score_row(row, titles[row.benchmark].title, verdict.alpha) for row in verdict.benchmarks
    )


def _score_row(row: BenchmarkVerdict, title: str, alpha: float) -> ScoreRow:
    blind = _blind_share(row.n, alpha)
    return ScoreRow(
        title=title,
        reference=points(row.reference_score),
        released=points(row.candidate_score),
        difference=signed_points(row.difference),
        interval=f"{signed_points(row.lower_bound, 1)} … {signed_points(row.upper_bound, 1)}",
        margin=points(row.margin, 1),
        guessing=points(row.chance, 1),
        p_harm=p_value(row.p_harm),
        n=row.n,
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


def verdict_summary(measured: Measured) -> VerdictSummary:
    verdict = measured.accuracy.verdict
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
class DataRow:
    """The file that a benchmark's questions come from."""

    title: str
    package: str
    path: str
    sha256: str
    license: str


def data_rows(measured: Measured) -> tuple[DataRow, ...]:
    hashes = {file.path: file.sha256 for file in measured.accuracy.data}
    return tuple(
        DataRow(
            title=benchmark.title,
            package=f"{benchmark.source.pypi}=={benchmark.source.version}",
            path=benchmark.source.file,
            sha256=hashes[benchmark.source.file],
            license=benchmark.license,
        )
        for row in measured.accuracy.verdict.benchmarks
        for benchmark in (measured.about.benchmarks[row.benchmark],)
    )
