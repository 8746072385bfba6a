"""What a smoke test saw: checks, facts of image and host, first minutes, operators. Part of the record."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.results import Frozen, Start


class Check(Frozen):
    name: str
    passed: bool
    seen: str
    seconds: float


class Facts(Frozen):
    """Read out of the running container and its host, never from configuration."""

    chip_name: str
    driver: str | None
    host_os: str
    host_kernel: str
    host_cpu: str
    host_cores: int
    host_memory_bytes: int
    docker_version: str
    image_os: str
    python_version: str
    packages: Mapping[str, str]  # distribution name → version, as the image's metadata says
    served_name: str
    port: int
    start_seconds: float
    flagscale_returned_seconds: float
    first_completion_seconds: float
    tokens_per_second: float
    max_model_len: int
    image_size_bytes: int
    operators: tuple[str, ...] | None = None  # of a library, seen running; None: there is none


class Sight(Frozen):
    """What the server answered of a picture."""

    colour: str  # of the square on it
    answer: str


class OperatorRow(Frozen):
    """One operator of a library beside a CPU reference, on what a served request gave it (docs/operators.md)."""

    name: str
    calls: int
    checked: int
    served: int  # of those checked: while a request was served, not while loading or warming up
    wrong: int
    absolute_error: float
    of_allowed: float  # the largest error as a share of what rounding allows; above 1 it is wrong
    fastest_ms: float | None  # of a checked call, until the device is idle
    unchecked: str = ""  # why the other calls were not compared


class SmokeResult(Frozen):
    checks: tuple[Check, ...]
    facts: Facts | None  # None when the server never answered rightly
    server_log: str = ""  # last lines of the server's log when a check failed
    starts: tuple[Start, ...] = ()
    sights: tuple[Sight, ...] = ()  # of a model that takes pictures
    # Of a stack with a library: those that the served model called, or why the matrix has none compared.
    operators: tuple[OperatorRow, ...] = ()
    operators_unchecked: str = ""
    operators_outside: tuple[
        str, ...
    ] = ()  # on, but outside torch's dispatcher: nobody sees their calls
    wrong_operators: tuple[str, ...] = ()  # what the operator check says where a check failed
