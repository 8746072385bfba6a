"""The logit pre-gate inside accuracy: each stack is traced while it is up anyway, and the pair is judged.

Traces are kept by what decides them, so that other limits, or a run that was killed, cost no serving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.accuracy_result import LogitVerdict
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import LogitLimits, LogitProfile
from pipeline.operator_evidence import Look
from pipeline.trace_file import read_reference, read_trace, write_reference, write_trace
from pipeline.traces import ReferenceTrace, Trace
from pipeline.world.answers import LookAt, Serve, no_library
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress
from pipeline.world.teacher import collect_candidate, collect_reference


class PreGateRefusedError(Exception):
    """The candidate's probabilities are not the reference's; no item need be asked."""

    def __init__(self, verdict: LogitVerdict) -> None:
        super().__init__(verdict.sentence)
        self.verdict = verdict
        self.looks: dict[str, Look] = {}  # at the operators of the stack that was up, if one was


@dataclass(frozen=True, kw_only=True)
class PreGateTask:
    """Everything that the pre-gate is told; limits come from the matrix."""

    key: str  # of what decides a trace: image, stacks, weights, prompts, the code that asks
    reference: str
    candidate: str
    profile: LogitProfile
    limits: LogitLimits
    prompts: tuple[str, ...]
    runs_after_warning: int  # of the items, before a candidate with a warning may pass
    folder: Path  # where traces are kept


class PreGate:
    """`on_served` and `least_runs` are what `measure_accuracy` calls."""

    def __init__(
        self,
        task: PreGateTask,
        serve: Serve,
        progress: Progress,
        *,
        fresh: bool,
        look_at: LookAt = no_library,
        keeps: Callable[[str], bool] = lambda _stack: True,
    ) -> None:
        """`keeps`: whether a stack that is up ran as it should, so that its trace may be used again."""
        self.task = task
        self._look_at = look_at
        self._keeps = keeps
        self._serve = serve
        self._progress = progress
        self._reference: ReferenceTrace | None = None
        self._candidate: Trace | None = None
        self._verdict: LogitVerdict | None = None
        if not fresh:
            self._reference = read_reference(self._file(task.reference), key=task.key)
            self._candidate = read_trace(self._file(task.candidate), key=task.key)

    def on_served(self, stack: str, endpoint: Endpoint) -> None:
        """Raises PreGateRefusedError as soon as both stacks are traced and do not pass."""
        if stack == self.task.reference and self._reference is None:
            self._trace_reference(endpoint)
        elif stack == self.task.candidate and self._candidate is None and self._reference:
            self._trace_candidate(endpoint, self._reference)
        if self._reference and self._candidate:
            try:
                self.verdict()
            except PreGateRefusedError as refused:
                refused.looks[stack] = self._look_at(stack)
                raise

    def verdict(self) -> LogitVerdict:
        """Serves a stack that was not up since; raises PreGateRefusedError for fail and invalid."""
        if self._verdict is None:
            self._verdict = judge_logits(self._traced_reference(), self._traced(), self.task.limits)
        if self._verdict.status in ("fail", "invalid"):
            raise PreGateRefusedError(self._verdict)
        return self._verdict

    def least_runs(self) -> int:
        return self.task.runs_after_warning if self.verdict().status == "warn" else 1

    def _traced_reference(self) -> ReferenceTrace:
        if self._reference is None:
            with self._serve(self.task.reference) as endpoint:
                return self._trace_reference(endpoint)
        return self._reference

    def _traced(self) -> Trace:
        if self._candidate is None:
            reference = self._traced_reference()
            with self._serve(self.task.candidate) as endpoint:
                return self._trace_candidate(endpoint, reference)
        return self._candidate

    def _trace_reference(self, endpoint: Endpoint) -> ReferenceTrace:
        task = self.task
        self._reference = collect_reference(
            endpoint,
            task.profile,
            task.prompts,
            stack=task.reference,
            top_k=task.limits.top_k,
            progress=self._progress,
        )
        self._candidate = None  # it was asked the answers of another trace
        self._file(task.candidate).unlink(missing_ok=True)
        if self._keeps(task.reference):
            write_reference(self._file(task.reference), self._reference, key=task.key)
        return self._reference

    def _trace_candidate(self, endpoint: Endpoint, reference: ReferenceTrace) -> Trace:
        task = self.task
        self._candidate = collect_candidate(
            endpoint, reference, task.prompts, stack=task.candidate, progress=self._progress
        )
        if self._keeps(task.candidate):
            write_trace(self._file(task.candidate), self._candidate, key=task.key)
        return self._candidate

    def _file(self, stack: str) -> Path:
        return self.task.folder / f"{stack}.npz"
