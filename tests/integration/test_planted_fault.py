"""A wrong operator on the real server: seen by the logit pre-gate, cured by excluding it, without a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import PROFILES, LogitLimits
from pipeline.results import LogitVerdict
from pipeline.traces import ReferenceTrace
from pipeline.world.evaluator import Endpoint
from pipeline.world.openai import direct_session
from pipeline.world.operators import read_evidence
from pipeline.world.teacher import collect_candidate, collect_reference
from tests.integration.conftest import Checkout
from tests.served import ServedCell, built_cell
from tests.trials.stacks import changes, faulty

pytestmark = pytest.mark.integration
LIMITS = LogitLimits()
FAULTY = faulty(
    "gross",
    "gelu_for_silu",
    "GELU where the model has SiLU",
    env={"VLLM_SERVER_DEV_MODE": "1"},  # vLLM offers /collective_rpc only then
    exclude={"silu": {"why": "computes GELU", "evidence": "this test"}},
)


def switch_operators(endpoint: Endpoint, *, exclude: str) -> dict[str, Any]:
    body = {"method": "switch_operators", "args": ["", exclude]}
    with direct_session() as session:
        answer = session.post(f"{endpoint.base_url}/collective_rpc", json=body, timeout=60)
    answer.raise_for_status()
    (evidence,) = answer.json()["results"]
    return dict(evidence)


def verdict(cell: ServedCell, endpoint: Endpoint, reference: ReferenceTrace) -> LogitVerdict:
    trace = collect_candidate(
        endpoint, reference, cell.prompts, stack=FAULTY.name, progress=lambda *_: None
    )
    return judge_logits(reference, trace, LIMITS)


def test_a_wrong_operator_fails_and_excluding_it_passes(released: Checkout, tmp_path: Path) -> None:
    cell = built_cell(tmp_path / "cell", changes((FAULTY,)), share=released.root / "out/share")
    with cell.served(FAULTY.name) as (server, endpoint):
        (process,) = read_evidence(server.container, cell.cell.operator_evidence(FAULTY.name))
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
        switch_operators(endpoint, exclude="")
        wrong = verdict(cell, endpoint, right)
        assert wrong.status == "fail", wrong.sentence
        evidence = switch_operators(endpoint, exclude="silu")
        assert evidence["calls"]["gelu_for_silu"] > 0
        cured = verdict(cell, endpoint, right)
        assert cured.status == "pass", cured.sentence
