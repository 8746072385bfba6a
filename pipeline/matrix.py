"""The types of matrix.yaml as a whole. `matrix_file.py` reads the file, `cell.py` resolves one cell of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from pipeline.benchmark import Benchmark
from pipeline.chip import Chip, Node, Operators
from pipeline.hub_accounts import Hub
from pipeline.matrix_values import CellId, Id, ServeValue, Strict
from pipeline.model import LoadProfile, Model, Size, Weights
from pipeline.policy import Gate, GateOverride
from pipeline.waiver import Waiver

Prefix = Annotated[str, StringConstraints(pattern=r"^[^/\s]+/[a-z0-9][^\s]*$")]  # host/path


class Project(Strict):
    source: str
    vendor: str


class Target(Strict):
    """Where a release goes. `staging` is the registry prefix that candidates are pushed to; default: the same.
    `public_key` is a PEM file of the repository: what readers verify its releases with. Without one nobody signs.
    `kind: harbor` says that the registry has Harbor's own interface beside that of OCI (docs/harbor.md).
    """

    registry: Prefix
    kind: Literal["oci", "harbor"] = "oci"
    staging: Prefix | None = None
    hubs: list[Hub] = []
    public_key: str | None = None


class CellExclusion(Strict):
    cell: CellId
    why: str


class CellOverride(Strict):
    """What one cell has otherwise than its chip and its model."""

    weights: Weights | None = None
    size: Size | None = None  # of those weights
    serve: dict[str, ServeValue] = {}
    env: dict[str, str] = {}
    operators: Operators = Operators()
    gate: GateOverride = GateOverride()
    benchmarks: list[str] | None = None
    load: LoadProfile | None = None


class Cells(Strict):
    exclude: list[CellExclusion] = []
    waivers: list[Waiver] = []
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


@cache
def json_schema() -> Mapping[str, Any]:
    """The JSON Schema that editors complete and check with; published as docs/matrix.schema.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "matrix.yaml of the FlagOS release factory",
        **Matrix.model_json_schema(),
    }
