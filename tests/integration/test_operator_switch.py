"""The operator switch with torch itself, and one search on the real server without a restart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bisecting import Search, prepare
from pipeline.chip import Run
from pipeline.probes.candidate import library_in
from pipeline.probes.probers import switched
from pipeline.stages.bisect import bisect
from tests.integration.conftest import ROOT
from tests.served import ServedCell, built_cell
from tests.trials.searches import CASES, changes
from tests.trials.stacks import MOUNTED

pytestmark = pytest.mark.integration
ONE = CASES[0]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> ServedCell:
    return built_cell(tmp_path_factory.mktemp("switch"), changes((ONE,)), share=ROOT / "out/share")


def test_torch_computes_with_exactly_the_operators_that_are_on(built: ServedCell) -> None:
    """Hundreds of overrides, switched again and again in one process: none stays behind, none is missing."""
    mounted = [f"{ROOT}/tests/planted:{MOUNTED}:ro", f"{ROOT}/pipeline:/checked/pipeline:ro"]
    run = Run(volumes=mounted, environment={"PYTHONPATH": "/opt/flagrelease:/checked"})
    script = f"{MOUNTED}/switch_check.py"
    with built.engine.container(
        built.image, ["sleep", "infinity"], run=run, name="operator-switch", volumes={}
    ) as container:
        code, output = container.execute(["python", script])
    assert code == 0, output
    seen = json.loads(output.strip().splitlines()[-1])
    assert seen["operators"] >= 400
    assert (seen["unsound"], seen["restored"]) == ([], True)
    assert seen["calls"] > 0
    assert seen["failing_sets"] == [["silu"]]
    assert seen["probes"] <= 13


def test_a_search_on_the_real_server_needs_no_restart(built: ServedCell, tmp_path: Path) -> None:
    served = built.searched
    library = library_in(built.engine, served.image, built.cell, ONE.stack)
    search = Search(stack=ONE.stack, level="fail", budget_s=900, verify="quick")
    ready = prepare(served, search, library, print)
    with switched(ready.candidate, ready.gates["quick"]) as prober:
        result = bisect(replace(ready.task, cache=tmp_path), prober, prober, print)
    assert (result.status, result.failing_sets) == ("found", (("silu",),))
    # One for the search, one for its confirmation: in between the engine is ended, as for restarts.
    assert result.starts == 2
