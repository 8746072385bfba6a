"""Every planted fault and every legitimate variant through the logit pre-gate, on the real server.

A complete run leaves the record that tests/unit/test_trials.py holds to what the gate promises.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from pipeline.canonical import canonical, sha256_file, write_whole
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import PROFILES, LogitLimits, LogitProfile
from pipeline.traces import ReferenceTrace
from pipeline.world.evaluator import Endpoint
from pipeline.world.node import node_class
from pipeline.world.operators import OperatorEvidence, read_evidence, total_calls
from pipeline.world.server import Served
from pipeline.world.teacher import collect_candidate, collect_reference
from tests.projects import ROOT
from tests.served import ServedCell, built_cell
from tests.trials.record import RECORD, PlantedFaults, Row
from tests.trials.stacks import LIBRARY, REFERENCE, STACKS, TrialStack, changes

pytestmark = pytest.mark.trials
OTHER_BATCHES = (4, 8, 12, 16)  # the release profile's own is 32
QUICK_BATCHES = (2, 3, 4, 5, 6, 7, 8) * 3
LIMITS = LogitLimits()
WRITTEN_WITHIN_S = 10  # the hook writes every 2 s


@dataclass(kw_only=True)
class Trial:
    """The reference's answers, and the rows so far."""

    cell: ServedCell
    reference: ReferenceTrace
    start_seconds: float
    rows: dict[str, Row] = field(default_factory=dict)

    def ask(
        self,
        stack: TrialStack,
        server: Served,
        endpoint: Endpoint,
        *,
        reference: ReferenceTrace | None = None,
        batch: int | None = None,
        label: str = "",
    ) -> Row:
        against = reference or self.reference
        started = time.monotonic()
        trace = collect_candidate(
            endpoint,
            against,
            self.cell.prompts,
            stack=stack.name,
            progress=lambda *_: None,
            batch=batch,
        )
        verdict = judge_logits(against, trace, LIMITS)
        warm_up = trace.seconds["warm-up"]
        verdict_seconds = time.monotonic() - started - warm_up
        processes = self._evidence(stack, server)
        row = Row(
            stack=stack.name,
            kind=stack.kind,
            says=stack.says,
            fault=stack.fault,
            batch=batch or against.profile.batch,
            start_seconds=server.ready_seconds,
            verdict_seconds=verdict_seconds,
            warm_up_seconds=warm_up,
            registered=processes[0].registered if processes else (),
            calls=total_calls(processes),
            verdict=verdict,
        )
        self.rows[label or stack.name] = row
        return row

    def _evidence(self, stack: TrialStack, server: Served) -> tuple[OperatorEvidence, ...]:
        folder = self.cell.cell.operator_evidence(stack.name)
        deadline = time.monotonic() + WRITTEN_WITHIN_S
        while True:
            found = read_evidence(server.container, folder)
            if (
                not stack.fault
                or total_calls(found).get(stack.fault)
                or time.monotonic() > deadline
            ):
                return found
            time.sleep(1)

    def record(self) -> PlantedFaults:
        return PlantedFaults(
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            node=node_class(self.cell.cell.chip.smi),
            image=self.cell.built.config_digest,
            weights_sha256=self.cell.weights.sha256,
            library_sha256=sha256_file(LIBRARY),
            reference=REFERENCE,
            reference_start_seconds=self.start_seconds,
            reference_seconds=self.reference.trace.seconds,
            rows=tuple(self.rows.values()),
        )


def _reference(cell: ServedCell, endpoint: Endpoint, profile: LogitProfile) -> ReferenceTrace:
    return collect_reference(
        endpoint,
        profile,
        cell.prompts,
        stack=REFERENCE,
        top_k=LIMITS.top_k,
        progress=lambda *_: None,
    )


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """The reference served once, asked, and asked again in other batches. The record is written when all is judged."""
    cell = built_cell(tmp_path_factory.mktemp("trial"), changes(), share=ROOT / "out/share")
    with cell.served(REFERENCE) as (server, endpoint):
        going = Trial(
            cell=cell,
            reference=_reference(cell, endpoint, PROFILES["release"]),
            start_seconds=server.ready_seconds,
        )
        for batch in OTHER_BATCHES:
            again = _itself(f"the reference in batches of {batch}")
            going.ask(again, server, endpoint, batch=batch, label=again.says)
        quick = _reference(cell, endpoint, PROFILES["quick"])
        for number, batch in enumerate(QUICK_BATCHES, start=1):
            again = _itself(f"the reference again, quick profile, run {number}")
            going.ask(again, server, endpoint, reference=quick, batch=batch, label=again.says)
    yield going
    if {stack.name for stack in STACKS} <= going.rows.keys():
        write_whole(RECORD, canonical(going.record().model_dump(mode="json")) + b"\n")


def _itself(says: str) -> TrialStack:
    return TrialStack(name=REFERENCE, kind="legitimate", says=says, planted=False)


def test_the_reference_against_itself_is_no_alarm(trial: Trial) -> None:
    runs = [row for row in trial.rows.values() if row.stack == REFERENCE]
    assert len(runs) == len(OTHER_BATCHES) + len(QUICK_BATCHES)
    assert {row.says: row.verdict.sentence for row in runs if row.verdict.status != "pass"} == {}


@pytest.mark.parametrize("stack", STACKS, ids=lambda stack: stack.name)
def test_faults_are_seen_and_legitimate_variants_are_not(trial: Trial, stack: TrialStack) -> None:
    with trial.cell.served(stack.name) as (server, endpoint):
        row = trial.ask(stack, server, endpoint)
    if stack.planted:
        assert len(row.registered) == 6
        assert all(row.calls.get(operator) for operator in row.registered)
    if stack.fault:
        assert row.calls.get(stack.fault), "the fault never came to act"
    seen = {"gross": ("fail",), "subtle": ("warn", "fail"), "legitimate": ("pass",)}
    assert row.verdict.status in seen[stack.kind], row.verdict.sentence
