"""The looks of a policy, one after another: only what is open is looked at again, and only where it can be."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pipeline.gate.evidence import Evidence
from pipeline.gate.limits import Limits, check_limits
from pipeline.gate.looks import Look, Rule, look_at
from pipeline.gate.pairing import Pairs
from pipeline.gate.sentences import Waiting
from pipeline.policy import Gate
from pipeline.result_source import ImportedRuns


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Where the looks ended, and with what."""

    status: Literal["pass", "fail", "open", "gain"]
    look: Look
    evidence: Evidence
    limits: Limits
    runs: Mapping[str, int]  # used of each benchmark
    next_runs: int | None = None
    undecided: tuple[str, ...] = ()
    waiting: Waiting | None = None  # for result files, without which nothing can pass


def take_looks(
    pairs: Sequence[Pairs],
    rule: Rule,
    gate: Gate,
    stacks: tuple[str, str],
    least_runs: int,
    files: Mapping[str, ImportedRuns],
) -> Ended:
    """`files` names what somebody else asked: of it there are no more runs than result files."""
    ended: Ended | None = None
    undecided = tuple(one.benchmark for one in pairs)
    runs = {one.benchmark: min(one.runs, gate.looks[0]) for one in pairs}
    for look in gate.looks:
        short = tuple(name for name in undecided if name in files and files[name].runs < look)
        asked = tuple(name for name in undecided if name not in short)
        if ended and (needed := _needed(ended, pairs, short, asked, least_runs)):
            waiting = Waiting(runs=look, files={name: files[name].next_file for name in needed})
            return replace(ended, waiting=waiting)
        if any(one.runs < look for one in pairs if one.benchmark in asked):
            ended = ended or _look(pairs, runs, rule, gate, stacks)
            return replace(ended, status="open", next_runs=look, undecided=asked)
        runs |= dict.fromkeys(asked, look)
        ended = _look(pairs, runs, rule, gate, stacks)
        is_early = look < least_runs or any(
            runs[one.benchmark] < least_runs
            for one, decides in zip(pairs, ended.look.is_deciding, strict=True)
            if decides and one.benchmark in files
        )
        if ended.status == "pass" and is_early:
            ended = replace(ended, status="open")
        if ended.status != "open":
            return ended
        undecided = _open_benchmarks(pairs, ended.look)
        if not undecided:
            break
    return ended if ended else _look(pairs, runs, rule, gate, stacks)


def _needed(
    ended: Ended,
    pairs: Sequence[Pairs],
    short: Collection[str],
    asked: Collection[str],
    least_runs: int,
) -> tuple[str, ...]:
    """Imported benchmarks without more rows that keep everything from passing, whatever else is asked again."""
    within = {
        one.benchmark: bool(mark) for one, mark in zip(pairs, ended.look.is_within, strict=True)
    }
    return tuple(
        name for name in short if not asked or not within[name] or ended.runs[name] < least_runs
    )


def _look(
    pairs: Sequence[Pairs],
    runs: Mapping[str, int],
    rule: Rule,
    gate: Gate,
    stacks: tuple[str, str],
) -> Ended:
    evidence = Evidence.joined([one.evidence(runs[one.benchmark]) for one in pairs])
    look = look_at(evidence, rule)
    critical = [
        one for one, is_critical in zip(pairs, rule.is_critical, strict=True) if is_critical
    ]
    limits = check_limits(critical, runs, stacks, gate, rule.level)
    status: Literal["pass", "fail", "open", "gain"] = "open"
    if look.failed or limits.shown:
        status = "fail"
    elif look.is_beyond.any():
        status = "gain"
    elif look.passed and not limits.blocking:
        status = "pass"
    return Ended(status=status, look=look, evidence=evidence, limits=limits, runs=dict(runs))


def _open_benchmarks(pairs: Sequence[Pairs], look: Look) -> tuple[str, ...]:
    """Which more runs could decide; all that decide where each for itself is settled already."""
    chosen = look.is_open if look.is_open.any() else look.is_deciding
    return tuple(one.benchmark for one, is_open in zip(pairs, chosen, strict=True) if is_open)
