"""Two ways to ask about one set of operators: a new engine each time, or one engine that is switched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pipeline.culprits import ProbeAnswer, ProbeVerdict
from pipeline.errors import StageRefusedError, WorldError
from pipeline.probes.candidate import Candidate, Enabled
from pipeline.probes.pregate import Judged, Oracle, crash
from pipeline.stages.bisect import Prober
from pipeline.world.operator_switch import DEV_MODE, switch_operators
from pipeline.world.server import Served


def restarted(candidate: Candidate, gate: Oracle) -> Prober:
    """Every probe is a new engine: what a release is, and a start each."""

    def probe(enabled: Enabled, slot: int) -> ProbeAnswer:
        started = time.monotonic()
        with ExitStack() as engines:
            try:
                served = engines.enter_context(candidate.served(enabled, slot))
            except StageRefusedError as never_ready:
                judged = _never_ready(candidate, never_ready, started)
            else:
                judged = gate.judge(served)
        return _answer(judged, started, starts=1)

    return Prober(profile=f"{gate.profile}, restarted", width=candidate.width, probe=probe)


@contextmanager
def switched(candidate: Candidate, gate: Oracle) -> Iterator[Prober]:
    """One engine, switched between probes; another only when operators have killed it."""
    server = _Switched(candidate=candidate, gate=gate)
    try:
        yield Prober(
            profile=f"{gate.profile}, switched", width=1, probe=server.probe, rest=server.stop
        )
    finally:
        server.stop()


@dataclass(kw_only=True)
class _Switched:
    candidate: Candidate
    gate: Oracle
    served: Served | None = None
    starts: int = 0
    engines: ExitStack = field(default_factory=ExitStack)

    def probe(self, enabled: Enabled, slot: int) -> ProbeAnswer:
        started, before = time.monotonic(), self.starts
        judged = self._judge(enabled, slot)
        if judged[0] in ("crash", "hang"):
            self.stop()
        return _answer(judged, started, starts=self.starts - before)

    def _judge(self, enabled: Enabled, slot: int) -> Judged:
        is_new = self.served is None
        served = self.served or self._start(slot)
        try:
            calls = self._switch(served, enabled)
        except WorldError as gone:
            if is_new:
                return crash(served, gone.message)
            # What was on before may have done it. A new engine tells.
            self.stop()
            return self._judge(enabled, slot)
        judged = self.gate.judge(served)
        if judged[0] == "pass" and enabled == self.candidate.operators:
            self._refuse_if_never_called(served, enabled, calls)
        return judged

    def _start(self, slot: int) -> Served:
        """With nothing on: what is computed while loading must not be spoiled for all probes."""
        nothing: Enabled = frozenset()
        self.starts += 1
        self.served = self.engines.enter_context(
            self.candidate.served(nothing, slot, environment=DEV_MODE)
        )
        return self.served

    def _switch(self, served: Served, enabled: Enabled) -> int:
        off = self.candidate.operators - enabled
        return switch_operators(served.base_url, on=enabled, off=off, timeout_s=self.gate.limit_s)

    def _refuse_if_never_called(self, served: Served, enabled: Enabled, before: int) -> None:
        """Registered is not yet running: on an H100 all of FlagGems was on and the answers were native, bit for bit."""
        if self._switch(served, enabled) == before:
            raise StageRefusedError(
                "all operators are switched on, and none of them was called",
                where=f"a running engine of {self.candidate.cell.id}",
                hint="this engine cannot be switched while it runs: search with --restart",
            )

    def stop(self) -> None:
        self.served = None
        self.engines.close()


def _never_ready(candidate: Candidate, refused: StageRefusedError, started: float) -> Judged:
    late = time.monotonic() - started >= candidate.cell.chip.start_budget_s
    last = next((line for line in reversed(refused.details.splitlines()) if line.strip()), "")
    verdict: ProbeVerdict = "hang" if late else "crash"
    return verdict, f"{refused.message}: {last}"[:200], {}


def _answer(judged: Judged, started: float, *, starts: int) -> ProbeAnswer:
    verdict, detail, numbers = judged
    seconds = round(time.monotonic() - started, 2)
    return ProbeAnswer(
        verdict=verdict, detail=detail, numbers=numbers, seconds=seconds, starts=starts
    )
