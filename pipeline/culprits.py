"""What a search for operators at fault leaves behind: probes, their answers, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from pipeline.canonical import canonical, sha256_bytes
from pipeline.chip import Exclusion
from pipeline.results import Frozen

Level = Literal["warn", "fail"]  # the mildest pre-gate verdict that counts as failing
ProbeVerdict = Literal["pass", "warn", "fail", "crash", "hang"]
BisectStatus = Literal[
    "found",  # and confirmed
    "not_confirmed",  # asked again, a probe answered otherwise
    "nothing_fails",
    "no_operator",  # the server fails with none switched on
    "budget_ended",
]


class Subject(Frozen):
    """What is probed. Every cached answer belongs to exactly one."""

    cell: str
    stack: str
    image: str  # config digest
    weights: str  # sha256 of the list of files
    library: str  # the module; the image pins its version
    settings: str  # sha256 of how the stack is served, operators aside
    node: str


class ProbeAnswer(Frozen):
    """How a server with one set of operators switched on did; only `pass`, or `warn` where asked so, is good."""

    verdict: ProbeVerdict
    detail: str  # why, in one line
    numbers: Mapping[str, float] = {}  # of the pre-gate: finite ones only
    seconds: float
    starts: int  # engines started for it; 0: a running one was switched

    def fails(self, level: Level) -> bool:
        return self.verdict != "pass" and (self.verdict != "warn" or level == "warn")


class Probe(Frozen):
    """One question and its answer. Of many operators, those switched off are named instead."""

    profile: str  # how was asked
    enabled_count: int
    enabled: tuple[str, ...] | None
    disabled: tuple[str, ...] | None
    answer: ProbeAnswer


class CheckedClaim(Frozen):
    """One statement of the answer, probed once more."""

    says: str
    held: bool
    probe: Probe


class MaskedFault(Frozen):
    """`failing` alone fails, yet passes when all but `disabled` are on."""

    failing: tuple[str, ...]
    disabled: tuple[str, ...]


class BisectResult(Frozen):
    bisect_schema: Literal[1] = 1
    status: BisectStatus
    sentence: str
    subject: Subject
    level: Level
    operators: tuple[str, ...]  # the search space: every registered operator
    failing_sets: tuple[tuple[str, ...], ...]
    exclusion: tuple[str, ...]
    maskings: tuple[MaskedFault, ...]
    suspects: tuple[str, ...]  # when the budget ended: the next culprit is among these
    checks: tuple[CheckedClaim, ...]
    probes: tuple[Probe, ...]  # in the order they were asked; also those that a cache answered
    cached: int  # of the probes, answered by an earlier run
    rounds: int  # of probes run side by side, in this run
    starts: int  # engines started for all of them, in earlier runs too
    probe_seconds: float  # likewise, summed

    @property
    def id(self) -> str:
        """Names the evidence by its content; what `operators.exclude.<name>.evidence` of the matrix says."""
        return f"bisect-{sha256_bytes(evidence_bytes(self))[:12]}"


def evidence_bytes(result: BisectResult) -> bytes:
    return canonical(result.model_dump(mode="json")) + b"\n"


def probe_of(
    enabled: frozenset[str], operators: Iterable[str], profile: str, answer: ProbeAnswer
) -> Probe:
    disabled = frozenset(operators) - enabled
    few_enabled = len(enabled) <= len(disabled)
    return Probe(
        profile=profile,
        enabled_count=len(enabled),
        enabled=tuple(sorted(enabled)) if few_enabled else None,
        disabled=None if few_enabled else tuple(sorted(disabled)),
        answer=answer,
    )


def together(names: Iterable[str]) -> str:
    """`a`, or `a + b` for operators that fail only together."""
    return " + ".join(sorted(names))


def exclusions_of(result: BisectResult) -> dict[str, Exclusion]:
    """What the matrix is to exclude, each with the failing sets it breaks."""
    found = {}
    for name in result.exclusion:
        sets = [failing for failing in result.failing_sets if name in failing]
        found[name] = Exclusion(
            why="; ".join(_why(name, failing, result) for failing in sets), evidence=result.id
        )
    return found


def _why(name: str, failing: tuple[str, ...], result: BisectResult) -> str:
    others = together(other for other in failing if other != name)
    fails = f"fails with {others} on, and only with it" if others else "fails when on alone"
    answer = answer_of(failing, result)
    if answer is None:
        return fails
    return (
        f"{fails}: {answer.detail}"
        if answer.verdict == "fail"
        else f"{fails}: {answer.verdict}, {answer.detail}"
    )


def answer_of(enabled: Iterable[str], result: BisectResult) -> ProbeAnswer | None:
    """The last answer for exactly these operators: of a check, where there is one."""
    wanted = tuple(sorted(enabled))
    probes = (*result.probes, *(check.probe for check in result.checks))
    return next((probe.answer for probe in reversed(probes) if probe.enabled == wanted), None)
