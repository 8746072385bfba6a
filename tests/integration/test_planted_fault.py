"""A wrong operator on the real server: seen by the logit pre-gate, cured by excluding it, without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.accuracy_result import LogitVerdict
from pipeline.gate.logits import judge_logits
from pipeline.gate.operators import operator_faults
from pipeline.logit_policy import PROFILES
from pipeline.operator_evidence import stack_operators
from pipeline.traces import ReferenceTrace
from pipeline.world.endpoint import Endpoint
from pipeline.world.operators import look_at_operators, read_evidence
from pipeline.world.teacher import collect_candidate, collect_reference
from tests.integration.conftest import Checkout
from tests.served import ServedCell, built_cell, switch_operators
from tests.trials.stacks import LIMITS, PLANTED, Block, changes

pytestmark = pytest.mark.integration
WITHOUT_SILU = Block(
    env={"VLLM_SERVER_DEV_MODE": "1", "PLANTED_FAULTS": "gelu_for_silu"},
    operators={
        "library": "planted.library",
        "exclude": {"silu": {"why": "computes GELU", "evidence": "this test"}},
    },
)


def verdict(cell: ServedCell, endpoint: Endpoint, reference: ReferenceTrace) -> LogitVerdict:
    trace = collect_candidate(
        endpoint, reference, cell.prompts, stack=PLANTED, progress=lambda *_: None
    )
    return judge_logits(reference, trace, LIMITS)


def test_a_wrong_operator_fails_and_excluding_it_passes(released: Checkout, tmp_path: Path) -> None:
    folder, share = tmp_path / "cell", released.root / "out/share"
    folder.mkdir()
    cell = built_cell(folder, changes({PLANTED: WITHOUT_SILU}), share=share)
    with cell.served(PLANTED) as (server, endpoint):
        (process,) = read_evidence(server.container, cell.cell.operator_evidence(PLANTED))
        assert process.exclude == ("silu",)
        assert "aten::silu" not in process.dispatcher
        assert all("planted/library.py" in where for where in process.dispatcher.values())
        right = collect_reference(
            endpoint,
            PROFILES["quick"],
            cell.prompts,
            stack="right",
            top_k=LIMITS.top_k,
            progress=lambda *_: None,
        )
        assert "silu" in switch_operators(endpoint).registered
        wrong = verdict(cell, endpoint, right)
        assert wrong.status == "fail", wrong.sentence
        cured_by = switch_operators(endpoint, exclude="silu")
        assert cured_by.calls["gelu_for_silu"] > 0
        cured = verdict(cell, endpoint, right)
        assert cured.status == "pass", cured.sentence
        look = look_at_operators(server.container, cell.cell.evidence_folders, wait=True)
        seen = {PLANTED: stack_operators(cell.cell.asked_operators(PLANTED), (look,))}
        assert list(operator_faults(seen, (PLANTED, PLANTED))) == []
        assert "rms_norm" in seen[PLANTED].registered
        assert sum(seen[PLANTED].calls.values()) >= sum(cured_by.calls.values())
