"""Every planted fault and every legitimate variant through the logit pre-gate, on the real server.

Rows are kept under out/trials/ until all are there, so that a trial can be run in parts and a killed one resumes. Then
they become the record that tests/unit/test_trials.py holds to what the gate promises.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.canonical import canonical, sha256_bytes, sha256_file, write_whole
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import PROFILES, LogitProfile
from pipeline.trace_file import read_reference, write_reference
from pipeline.traces import ReferenceTrace
from pipeline.world.evaluator import Endpoint
from pipeline.world.node import node_class
from pipeline.world.server import Served
from pipeline.world.teacher import collect_candidate, collect_reference
from tests.projects import ROOT
from tests.served import ServedCell, built_cell, plant, switch_operators
from tests.trials.record import RECORD, PlantedFaults, Row
from tests.trials.stacks import (
    CASES,
    LIBRARY,
    LIMITS,
    ON_THE_PLANTED_STACK,
    PLANTED,
    REFERENCE,
    VARIANTS,
    Case,
    changes,
)

pytestmark = pytest.mark.trials
# Half of what a release asks, so that the trial stays near a quarter of an hour. Fewer positions see less, not more.
PROFILE = LogitProfile(
    name="trial",
    prompts=32,
    answered=16,
    scored_alone=8,
    decoded_alone=2,
    answer_tokens=32,
    batch=16,
    min_positions=2000,
)
OTHER_BATCHES = (4, 8)
QUICK_BATCHES = (2, 3, 4, 5, 6, 7) * 3  # the quick profile's is 8
MAY_BE = {"gross": ("fail",), "subtle": ("warn", "fail"), "legitimate": ("pass",)}


def _itself(says: str) -> Case:
    return Case(name=REFERENCE, kind="legitimate", says=says, stack=REFERENCE)


IN_OTHER_BATCHES = {n: _itself(f"the reference in batches of {n}") for n in OTHER_BATCHES}
AGAIN = [_itself(f"the reference again, quickly, run {n + 1}") for n in range(len(QUICK_BATCHES))]
ALL = (*IN_OTHER_BATCHES.values(), *AGAIN, *CASES)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The reference's answers, and a folder of rows, one a case."""

    cell: ServedCell
    folder: Path
    reference: ReferenceTrace

    def ask(
        self,
        case: Case,
        served: tuple[Served, Endpoint],
        reference: ReferenceTrace,
        *,
        batch: int | None = None,
    ) -> Row:
        """The row of this case, measured now unless an unfinished trial left it."""
        if kept := self.kept([case]):
            return kept[0]
        server, endpoint = served
        before = self._switched(case, served) if case.stack == PLANTED else {}
        started = time.monotonic()
        trace = collect_candidate(
            endpoint,
            reference,
            self.cell.prompts,
            stack=case.name,
            progress=lambda *_: None,
            batch=batch,
        )
        verdict = judge_logits(reference, trace, LIMITS)
        warm_up = trace.seconds["warm-up"]
        seconds = time.monotonic() - started - warm_up
        after = self._switched(case, served) if case.stack == PLANTED else {}
        row = Row(
            case=case.name,
            kind=case.kind,
            says=case.says,
            fault=case.fault,
            batch=batch or reference.profile.batch,
            start_seconds=server.ready_seconds,
            verdict_seconds=seconds,
            warm_up_seconds=warm_up,
            calls={name: count - before.get(name, 0) for name, count in after.items()},
            verdict=verdict,
        )
        write_whole(self._file(case), row.model_dump_json().encode())
        return row

    def kept(self, cases: Sequence[Case]) -> list[Row]:
        """The rows of all these cases; none unless all are there."""
        files = [self._file(case) for case in cases]
        if not all(file.exists() for file in files):
            return []
        return [Row.model_validate_json(file.read_bytes()) for file in files]

    def _file(self, case: Case) -> Path:
        return self.folder / f"{case.says}.json"

    def _switched(self, case: Case, served: tuple[Served, Endpoint]) -> Mapping[str, int]:
        """The calls so far, once the case's fault is on; switching to what is on changes nothing."""
        server, endpoint = served
        plant(server.container, case.fault)
        evidence = switch_operators(endpoint)
        assert evidence.registered == tuple(sorted(OPERATORS))
        return evidence.calls

    def finish(self) -> None:
        """The record, once every row is there; the next trial begins anew."""
        if rows := self.kept(ALL):
            record = PlantedFaults(
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
                node=node_class(self.cell.cell.chip.smi),
                image=self.cell.built.config_digest,
                weights_sha256=self.cell.weights.sha256,
                library_sha256=sha256_file(LIBRARY),
                reference=REFERENCE,
                reference_seconds=self.reference.trace.seconds,
                rows=tuple(rows),
            )
            write_whole(RECORD, canonical(record.model_dump(mode="json")) + b"\n")
            shutil.rmtree(self.folder)


OPERATORS = ("attention", "fused_add_rms_norm", "linear", "rms_norm", "rotary_embedding", "silu")


def _reference(cell: ServedCell, endpoint: Endpoint, profile: LogitProfile) -> ReferenceTrace:
    return collect_reference(
        endpoint,
        profile,
        cell.prompts,
        stack=REFERENCE,
        top_k=LIMITS.top_k,
        progress=lambda *_: None,
    )


def wrong(rows: list[Row]) -> dict[str, str]:
    """What the verdict said where it should have been another one."""
    return {
        row.says: row.verdict.sentence for row in rows if row.verdict.status not in MAY_BE[row.kind]
    }


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """The reference is served once, unless an unfinished trial of the same image and library has its answers."""
    cell = built_cell(tmp_path_factory.mktemp("trial"), changes(), share=ROOT / "out/share")
    asked = PROFILE.model_dump(mode="json")
    key = sha256_bytes(canonical([cell.built.config_digest, sha256_file(LIBRARY), asked]))
    folder = ROOT / "out/trials" / key[:12]
    reference = read_reference(folder / "reference.npz", key=key)
    if reference is None:
        with cell.served(REFERENCE) as (_, endpoint):
            reference = _reference(cell, endpoint, PROFILE)
        write_reference(folder / "reference.npz", reference, key=key)
    going = Trial(cell=cell, folder=folder, reference=reference)
    yield going
    going.finish()


def test_every_planted_fault_is_seen_and_the_right_operators_are_not(trial: Trial) -> None:
    rows = trial.kept(ON_THE_PLANTED_STACK)
    if not rows:
        with trial.cell.served(PLANTED) as served:
            rows = [trial.ask(case, served, trial.reference) for case in ON_THE_PLANTED_STACK]
    for row in rows:
        ran = [name for name in (*OPERATORS, row.fault) if row.calls.get(name)]
        assert ran == [name for name in (*OPERATORS, row.fault) if name], row.says
    assert wrong(rows) == {}


@pytest.mark.parametrize("case", VARIANTS, ids=lambda case: case.name)
def test_a_legitimate_variant_is_no_alarm(trial: Trial, case: Case) -> None:
    rows = trial.kept([case])
    if not rows:
        with trial.cell.served(case.stack) as served:
            rows = [trial.ask(case, served, trial.reference)]
    assert wrong(rows) == {}


def test_the_reference_against_itself_is_no_alarm(trial: Trial) -> None:
    with trial.cell.served(REFERENCE) as served:
        rows = [
            trial.ask(case, served, trial.reference, batch=batch)
            for batch, case in IN_OTHER_BATCHES.items()
        ]
        quick = _reference(trial.cell, served[1], PROFILES["quick"])
        rows += [
            trial.ask(case, served, quick, batch=batch)
            for batch, case in zip(QUICK_BATCHES, AGAIN, strict=True)
        ]
    assert wrong(rows) == {}
