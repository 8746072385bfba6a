"""The oracle of a search: a served stack judged by the logit pre-gate, against a reference that was asked once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.accuracy_result import LogitVerdict
from pipeline.canonical import canonical, sha256_bytes
from pipeline.culprits import ProbeVerdict
from pipeline.errors import StageRefusedError, WorldError
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import PROFILES, LogitLimits, ProfileName
from pipeline.probes.candidate import Candidate
from pipeline.serve import launch
from pipeline.trace_file import read_reference, write_reference
from pipeline.traces import ReferenceTrace
from pipeline.world.endpoint import Endpoint
from pipeline.world.server import Served, kill_server, serving
from pipeline.world.teacher import collect_candidate, collect_reference

Judged = tuple[ProbeVerdict, str, dict[str, float]]  # with the reason and the numbers


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The logit pre-gate of one profile, with the reference's answers at hand."""

    reference: ReferenceTrace
    limits: LogitLimits
    prompts: Sequence[str]
    model: str  # as served
    stack: str
    limit_s: float  # a probe that takes longer hangs
    retry_wait_s: float = 2  # before a broken connection is tried again

    @property
    def profile(self) -> str:
        """Everything that the answers of probes hang on, beside the server."""
        asked = [self.reference.profile.model_dump(), self.limits.model_dump(), [*self.prompts]]
        return f"{self.reference.profile.name} {sha256_bytes(canonical(asked))[:12]}"

    def judge(self, served: Served) -> Judged:
        """Verdict, reason and numbers. A server that dies or hangs gets a verdict too.

        Raises WorldError when the machine is why it died: no operator is to blame.
        """
        endpoint = Endpoint(
            base_url=served.base_url,
            model=self.model,
            timeout_s=self.limit_s,
            retry_wait_s=self.retry_wait_s,
        )
        with _killed_after(self.limit_s, served) as is_late:
            try:
                trace = collect_candidate(
                    endpoint, self.reference, self.prompts, stack=self.stack, progress=_quiet
                )
            except WorldError as gone:
                if not is_late.is_set():
                    return crash(served, gone.message)
        if is_late.is_set():
            return "hang", f"not judged within {self.limit_s:.0f} s", {}
        verdict = judge_logits(self.reference, trace, self.limits)
        if verdict.status == "invalid":
            raise _invalid(verdict)
        if verdict.status == "fail" and not served.is_healthy():
            # vLLM answers HTTP 500 for a while after its engine has died.
            return crash(served, _reason(verdict))
        return verdict.status, _reason(verdict), numbers_of(verdict)


def _invalid(verdict: LogitVerdict) -> StageRefusedError:
    return StageRefusedError(
        verdict.sentence,
        where="the pre-gate's reference",
        hint="the reference must agree with itself before operators can be judged",
    )


def references(
    candidate: Candidate,
    profiles: Sequence[ProfileName],
    prompts: Sequence[str],
    say: Callable[[str], None],
) -> dict[ProfileName, ReferenceTrace]:
    """The reference's answers in each profile: from disk, or all from one engine.

    Raises StageRefusedError when one of them could judge nothing: before anything is probed.
    """
    stack, cell = candidate.cell.chip.reference, candidate.cell
    top_k = cell.gate.logits.top_k
    asked = sha256_bytes(canonical([*prompts, cell.serve_arguments(stack), top_k]))
    keys: dict[ProfileName, str] = {
        name: f"{candidate.image} {asked} {PROFILES[name].model_dump_json()}" for name in profiles
    }
    files = {name: candidate.folder / f"reference.{name}.npz" for name in profiles}
    found = {name: read_reference(files[name], key=keys[name]) for name in profiles}
    if not all(found.values()):
        started = launch(cell, stack, candidate.image, candidate.share)
        with (
            serving(candidate.engine, started, lambda _: None) as served,
            served.explaining(),
        ):
            say(f"{stack}, the reference, is ready after {served.ready_seconds:.0f} s")
            endpoint = Endpoint(base_url=served.base_url, model=cell.served_name)
            for name in profiles:
                trace = collect_reference(
                    endpoint,
                    PROFILES[name],
                    prompts,
                    stack=stack,
                    top_k=top_k,
                    progress=_quiet,
                )
                _refuse_invalid(trace, cell.gate.logits)  # and it is not kept
                write_reference(files[name], trace, key=keys[name])
                found[name] = trace
    whole = {name: trace for name, trace in found.items() if trace is not None}
    for trace in whole.values():
        _refuse_invalid(trace, cell.gate.logits)
    return whole


def _refuse_invalid(reference: ReferenceTrace, limits: LogitLimits) -> None:
    verdict = judge_logits(reference, reference.trace, limits)
    if verdict.status == "invalid":
        raise _invalid(verdict)


def crash(served: Served, otherwise: str) -> Judged:
    """With the first error of the server's log, in one line. Raises WorldError when the machine is why it died."""
    served.refuse_known_end()
    return "crash", served.log_errors().partition("\n")[0][:200] or otherwise, {}


def numbers_of(verdict: LogitVerdict) -> dict[str, float]:
    """The pre-gate's figures of every pass, by name; those that could not be computed are left out."""
    names = ("kl_mean", "kl_p99", "top1_agreement", "widest_margin")
    return {
        f"{row.name} {name}": value
        for row in verdict.comparisons
        for name in names
        if (value := getattr(row, name)) is not None
    }


def _reason(verdict: LogitVerdict) -> str:
    if verdict.reasons:
        return verdict.reasons[0].partition(": ")[2]
    means = [row.kl_mean for row in verdict.comparisons if row.kl_mean is not None]
    return f"mean KL {max(means, default=0):.1e} at most"


@contextmanager
def _killed_after(limit_s: float, served: Served) -> Iterator[threading.Event]:
    is_late = threading.Event()

    def kill() -> None:
        is_late.set()
        kill_server(served)

    timer = threading.Timer(limit_s, kill)
    timer.start()
    try:
        yield is_late
    finally:
        timer.cancel()


def _quiet(_name: str, _done: int, _of: int) -> None:
    pass
