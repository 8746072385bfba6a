"""What the workers' operator check says, read back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.errors import WorldError
from pipeline.world.operator_check import OperatorCheck, parse_check


def operator(**changes: Any) -> dict[str, Any]:
    right = {
        "calls": {"loading": 10, "serving": 2},
        "checked": {"loading": 2, "serving": 1},
        "wrong": {},
        "unchecked": {"checked often enough": 9},
        "failures": {},
        "absolute_error": 0.0,
        "relative_error": 0.0,
        "times_allowed": 0.0,
        "says": "",
        "fastest_ms": 0.2,
        "total_ms": 0.7,
        "smallest_wrong": None,
    }
    return right | changes


def wrong(times_allowed: float, elements: int) -> dict[str, Any]:
    call = {"python": f"call({elements})", "phase": "loading", "elements": elements, "says": "off"}
    return operator(
        wrong={"loading": 2},
        absolute_error=3.1,
        times_allowed=times_allowed,
        says="4 of 4 elements",
        smallest_wrong=call,
    )


def check(**operators: dict[str, Any]) -> OperatorCheck:
    process = {
        "check_schema": 1,
        "backend": "CUDA",
        "rank": 0,
        "process": 7,
        "seconds": {"loading": 1.0},
        "outside_dispatcher": [],
        "operators": operators,
    }
    processes = parse_check(json.dumps([process]), where="a test")
    return OperatorCheck(
        cell="nvidia/smollm2",
        stack="flagos",
        image="i@sha256:0",
        answer="",
        refused="",
        processes=processes,
    )


def test_wrong_operators_come_worst_first_and_right_ones_not_at_all() -> None:
    found = check(cos=operator(), mul=wrong(2, 9), pow_scalar=wrong(50, 4))
    assert [name for name, _ in found.worst] == ["pow_scalar", "mul"]
    assert found.sentences()[1] == (
        "operator check: pow_scalar wrong "
        "(2 of 2 checked calls while loading, max error 3.1; 4 of 4 elements)"
    )


def test_the_smallest_call_is_looked_for_among_the_operators_at_fault_alone() -> None:
    found = check(mul=wrong(2, 9), pow_scalar=wrong(50, 4))
    assert found.smallest_call({"mul"}).splitlines() == ["call(9)", "# while loading: off"]
    assert found.smallest_call({"mul", "pow_scalar"}).startswith("call(4)")
    assert found.smallest_call({"cos"}) == ""


def test_the_table_names_what_was_called_and_why_it_was_not_checked() -> None:
    found = check(cos=operator(), never=operator(calls={}), mul=wrong(2, 9))
    assert [line.split()[0] for line in found.table()] == ["operator", "mul", "cos"]
    assert found.table()[2].endswith("checked often enough")


def test_a_file_of_another_version_is_refused() -> None:
    with pytest.raises(WorldError, match="cannot be read"):
        parse_check('[{"check_schema": 2}]', where="a test")
