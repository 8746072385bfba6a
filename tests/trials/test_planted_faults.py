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

from pipeline.canonical import canonical, sha256_bytes, write_whole
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import PROFILES, LogitProfile
from pipeline.trace_file import read_reference, write_reference
from pipeline.traces import ReferenceTrace
from pipeline.world.endpoint import Endpoint
from pipeline.world.node import node_class
from pipeline.world.server import Served
from pipeline.world.teacher import collect_candidate, collect_reference
from tests.projects import ROOT
from tests.served import ServedCell, built_cell, plant, switch_operators
from tests.trials.record import RECORD, PlantedFaults, Row, code_sha256
from tests.trials.stacks import (
    CASES,
    FAULTS,
    LIMITS,
    REFERENCE,
    SERVINGS,
    Case,
    Serving,
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
MAY_BE = {"gross": ("fail",), "subtle": ("warn", "fail"), "legitimate": ("pass",)}


OPERATORS = ("attention", "fused_add_rms_norm", "linear", "rms_norm", "rotary_embedding", "silu")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The cell, and a folder of rows, one a case; references answer when they are served first."""

    cell: ServedCell
    prompts: tuple[str, ...]
    folder: Path

    def rows(self, serving: Serving) -> list[Row]:
        """The rows of one serving, measured now unless an unfinished trial left them."""
        if kept := self.kept(serving.cases):
            return kept
        with self.cell.served(serving.stack) as served:
            return [self._ask(case, served) for case in serving.cases]

    def kept(self, cases: Sequence[Case]) -> list[Row]:
        """The rows of all these cases; none unless all are there."""
        files = [self._file(case) for case in cases]
        if not all(file.exists() for file in files):
            return []
        return [Row.model_validate_json(file.read_bytes()) for file in files]

    def reference(self, stack: str, profile: LogitProfile, endpoint: Endpoint) -> ReferenceTrace:
        """What the stack answered when it was served first."""
        file = self.folder / f"{stack}.{profile.name}.npz"
        if found := read_reference(file, key=self.folder.name):
            return found
        trace = collect_reference(
            endpoint,
            profile,
            self.prompts,
            stack=stack,
            top_k=LIMITS.top_k,
            progress=lambda *_: None,
        )
        write_reference(file, trace, key=self.folder.name)
        return trace

    def finish(self) -> None:
        """The record, once every row is there; the next trial begins anew."""
        rows = self.kept(CASES)
        whole = read_reference(self.folder / f"{REFERENCE}.trial.npz", key=self.folder.name)
        if not rows or not whole:
            return
        record = PlantedFaults(
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            node=node_class(self.cell.cell.chip),
            image=self.cell.built.config_digest,
            weights_sha256=self.cell.weights.sha256,
            code_sha256=code_sha256(),
            prompts_sha256=sha256_bytes(canonical([*self.prompts])),
            reference_seconds=whole.trace.seconds,
            rows=tuple(rows),
        )
        write_whole(RECORD, canonical(record.model_dump(mode="json")) + b"\n")
        shutil.rmtree(self.folder)

    def _ask(self, case: Case, served: tuple[Served, Endpoint]) -> Row:
        server, endpoint = served
        profile = PROFILES["quick"] if case.is_quick else PROFILE
        reference = self.reference(case.against, profile, endpoint)
        before = self._switched(case, served) if case in FAULTS else {}
        started = time.monotonic()
        trace = collect_candidate(
            endpoint,
            reference,
            self.prompts,
            stack=case.name,
            progress=lambda *_: None,
            batch=case.batch,
        )
        verdict = judge_logits(reference, trace, LIMITS)
        warm_up = trace.seconds["warm-up"]
        seconds = time.monotonic() - started - warm_up
        after = self._switched(case, served) if case in FAULTS else {}
        row = Row(
            case=case.name,
            kind=case.kind,
            says=case.says,
            fault=case.fault,
            against=case.against,
            batch=case.batch or profile.batch,
            start_seconds=server.ready_seconds,
            verdict_seconds=seconds,
            warm_up_seconds=warm_up,
            calls={name: count - before.get(name, 0) for name, count in after.items()},
            verdict=verdict,
        )
        write_whole(self._file(case), row.model_dump_json().encode())
        return row

    def _file(self, case: Case) -> Path:
        return self.folder / f"{case.says}.json"

    def _switched(self, case: Case, served: tuple[Served, Endpoint]) -> Mapping[str, int]:
        """The calls so far, once the case's fault is on; switching to what is on changes nothing."""
        server, endpoint = served
        plant(server.container, case.fault)
        evidence = switch_operators(endpoint)
        assert evidence.registered == tuple(sorted(OPERATORS))
        return evidence.calls


def wrong(rows: list[Row]) -> dict[str, str]:
    """What the verdict said where it should have been another one."""
    return {
        row.says: row.verdict.sentence for row in rows if row.verdict.status not in MAY_BE[row.kind]
    }


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    """Goes on with an unfinished trial of the same image, code and texts."""
    cell = built_cell(tmp_path_factory.mktemp("trial"), changes(), share=ROOT / "out/share")
    prompts = tuple(cell.other_prompts)
    asked = [PROFILE.model_dump(mode="json"), LIMITS.model_dump(mode="json"), [*prompts]]
    key = sha256_bytes(canonical([cell.built.config_digest, code_sha256(), asked]))
    going = Trial(cell=cell, prompts=prompts, folder=ROOT / "out/trials" / key[:12])
    yield going
    going.finish()


@pytest.mark.parametrize("serving", SERVINGS, ids=lambda serving: serving.name)
def test_what_is_wrong_is_seen_and_what_is_right_is_no_alarm(
    trial: Trial, serving: Serving
) -> None:
    rows = trial.rows(serving)
    for case, row in zip(serving.cases, rows, strict=True):
        due = {*OPERATORS, case.fault} - {""} if case in FAULTS else set()
        assert {name for name, calls in row.calls.items() if calls} == due, row.says
    assert wrong(rows) == {}
