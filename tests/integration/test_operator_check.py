"""The operator check with torch itself, and on the real server: a planted wrong operator is named, and only that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.chip import Run
from pipeline.operator_evidence import AskedOperators
from pipeline.probes.cell_check import check_cell
from pipeline.world.operator_check import parse_check
from tests.integration.conftest import ROOT
from tests.served import ServedCell, built_cell
from tests.trials.searches import CASES, changes
from tests.trials.stacks import MOUNTED

pytestmark = pytest.mark.integration
ONE = CASES[0]
HALF = "half_floats"
MOUNTS = [f"{ROOT}/tests/planted:{MOUNTED}:ro"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ServedCell:
    """The culprit's stack, and one in half floats, as most are released."""
    half = {**ONE.block(), "serve": {"dtype": "bfloat16"}}
    stacks = {**changes((ONE,)), ("chips", "cpu", "stacks", HALF): half}
    return built_cell(tmp_path_factory.mktemp("check"), stacks, share=ROOT / "out/share")


def said_inside(built: ServedCell, script: str) -> Any:
    """What a script of tests/planted prints as JSON, run in the image."""
    run = Run(volumes=MOUNTS, environment={"PYTHONPATH": "/opt/flagrelease"})
    with built.engine.container(
        built.image, ["sleep", "infinity"], run=run, name="operator-check", volumes={}
    ) as container:
        code, output = container.execute(["python", f"{MOUNTED}/{script}"])
    assert code == 0, output
    return json.loads(output.splitlines()[-1])


def test_wrong_copies_are_found_and_do_not_blind_the_check(built: ServedCell) -> None:
    (seen,) = parse_check(json.dumps([said_inside(built, "check_check.py")]), where="here")
    wrong = {name for name, operator in seen.operators.items() if operator.is_wrong}
    # sort copies inside, so it is wrong as well.
    assert wrong == {"silu", "pow_scalar", "copy_", "to_copy", "sort"}
    power = seen.operators["pow_scalar"]
    assert dict(power.wrong) == {"loading": 2}
    assert power.smallest_wrong
    assert power.smallest_wrong.python.startswith("torch.ops.aten.pow.Scalar(10000.0, torch.tensor")
    assert dict(seen.operators["uniform_"].unchecked) == {"random": 1}
    assert not any(operator.failures for operator in seen.operators.values())
    assert seen.outside_dispatcher == ("outside",)


def test_gelu_for_silu_is_named_on_the_real_server(built: ServedCell) -> None:
    found, path = check_cell(built.searched, ONE.stack, print)
    assert found.refused == ""
    assert found.wrong == {"silu"}, found.sentences()
    assert found.smallest_call({"silu"}).startswith("torch.ops.aten.silu.default(")
    assert path == built.project.operators_file(built.cell)


def test_without_it_the_served_operators_compute_like_the_cpu(
    built: ServedCell, tmp_path: Path
) -> None:
    """As a smoke test checks a repaired stack: exactly the operators of the release are on."""
    asked = AskedOperators(library="planted.crowd", exclude=("silu",))
    found, _ = check_cell(built.searched, HALF, print, asked, tmp_path)
    assert found.refused == ""
    assert found.answer
    assert found.worst == (), found.sentences()
    rows = {row.name: row for row in found.rows()}
    assert "silu" not in rows
    compared = [row for row in rows.values() if row.checked]
    assert {"rotary_embedding", "linear"} <= {row.name for row in compared}
    assert all(row.of_allowed <= 1 and row.fastest_ms for row in compared)


def test_the_reference_tells_right_from_wrong_and_from_what_is_not_defined(
    built: ServedCell,
) -> None:
    found = said_inside(built, "reference_check.py")
    verdicts = {
        name: "not compared" if said.startswith("not compared") else "wrong" if said else "right"
        for name, (said, _) in found.items()
    }
    assert verdicts == {name: wanted for name, (_, wanted) in found.items()}, found
