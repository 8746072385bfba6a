"""The rows of a card's tables, with every number as the card prints it. Pure."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from pipeline.card_facts import LATER, MEASURED, NEEDED, Measured
from pipeline.card_numbers import cell_text, p_value, points, seconds, signed_points
from pipeline.record import BenchmarkVerdict, LoadResult, Record, StackAbout

# A set is small when a loss of this many points stays possible even if no answer changes.
SMALL_SET_POINTS = 1
# Options of the server that change what a client sees, and that no stage asks for.
CLIENT_OPTIONS = ("reasoning_parser", "tool_call_parser")


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

    margins: str
    widest: str  # the largest loss that is not ruled out
    widest_title: str
    confidence: str  # per cent, one-sided
    failed_reference: int
    failed_released: int


def verdict_summary(measured: Measured) -> VerdictSummary:
    verdict = measured.accuracy.verdict
    rows = verdict.benchmarks
    widest = min(rows, key=lambda row: row.lower_bound)
    margins = sorted({row.margin for row in rows})
    return VerdictSummary(
        margins=" – ".join(
            points(margin, 1) for margin in dict.fromkeys((margins[0], margins[-1]))
        ),
        widest=points(max(0.0, -widest.lower_bound), 1),
        widest_title=measured.about.benchmarks[widest.benchmark].title,
        confidence=f"{100 * (1 - verdict.alpha):g}",
        failed_reference=sum(row.errors_reference for row in rows),
        failed_released=sum(row.errors_candidate for row in rows),
    )


@dataclass(frozen=True, kw_only=True)
class LoadRow:
    """Both stacks under one load: output tokens per second, times in milliseconds."""

    concurrency: int
    requests: int
    reference: str
    released: str
    ratio: str
    ttft_reference: str
    ttft_released: str
    tpot_reference: str
    tpot_released: str


def load_rows(measured: Measured) -> tuple[LoadRow, ...]:
    result, about = measured.performance, measured.about
    loads = {(load.stack, load.concurrency): load for load in result.loads}
    return tuple(
        _load_row(
            loads[about.reference, ratio.concurrency],
            loads[about.released, ratio.concurrency],
            ratio.ratio,
        )
        for ratio in result.ratios
    )


def _load_row(reference: LoadResult, released: LoadResult, ratio: float) -> LoadRow:
    return LoadRow(
        concurrency=released.concurrency,
        requests=released.requests,
        reference=f"{reference.output_tokens_per_s:.1f}",
        released=f"{released.output_tokens_per_s:.1f}",
        ratio=f"{ratio:.3f}",
        ttft_reference=f"{reference.mean_ttft_ms:.0f}",
        ttft_released=f"{released.mean_ttft_ms:.0f}",
        tpot_reference=f"{reference.mean_tpot_ms:.1f}",
        tpot_released=f"{released.mean_tpot_ms:.1f}",
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One argument or variable in which the stacks differ; None where a stack does not set it."""

    name: str
    reference: str | None
    released: str | None


def differences(measured: Measured) -> tuple[Difference, ...]:
    about = measured.about
    left, right = (_settings(about.stacks[name]) for name in (about.reference, about.released))
    return tuple(
        Difference(name=name, reference=left.get(name), released=right.get(name))
        for name in sorted({*left, *right})
        if left.get(name) != right.get(name)
    )


def _settings(stack: StackAbout) -> dict[str, str]:
    variables = {name: str(value) for name, value in stack.environment.items()}
    return variables | {name: cell_text(value) for name, value in stack.arguments.items()}


@dataclass(frozen=True, kw_only=True)
class StageRow:
    name: str
    started: str
    seconds: str
    node: str
    reused_from: str | None


def stage_rows(record: Record) -> tuple[StageRow, ...]:
    found = ((name, record.stages.get(name)) for name in NEEDED)
    return tuple(
        StageRow(
            name=name,
            started=stage.started,
            seconds=seconds(stage.seconds),
            node=cell_text(stage.node),
            reused_from=stage.reused_from,
        )
        for name, stage in found
        if stage
    )


def nodes(record: Record) -> tuple[str, ...]:
    """Where the image was served to be measured, each node once."""
    found = (record.stages.get(name) for name in MEASURED)
    return tuple(dict.fromkeys(stage.node for stage in found if stage))


def stages_not_done(record: Record) -> tuple[str, ...]:
    """Stages that a card can do without and that did not pass."""
    found = ((name, getattr(record.stages, name, None)) for name in LATER)
    return tuple(name for name, stage in found if stage is None or stage.status != "passed")


def untested_options(measured: Measured) -> tuple[str, ...]:
    arguments = measured.about.stacks[measured.about.released].arguments
    return tuple(name for name in CLIENT_OPTIONS if name in arguments)


def smoke_answer(measured: Measured) -> str:
    """What the server answered to the prompt of the smoke test, in one line."""
    seen = (check.seen for check in measured.smoke.checks if check.name == "completion")
    text = next(seen, "")
    return cell_text(_unquoted(text)).replace("`", "'")


def _unquoted(text: str) -> str:
    try:
        return str(ast.literal_eval(text))
    except (SyntaxError, ValueError):
        return text
