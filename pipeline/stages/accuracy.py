"""accuracy: stacks of one image answer the same items until the pairs decide, or the runs are used up.

Every row goes to items.jsonl: ids, hashes and scores, no text of a benchmark.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.accuracy_result import AccuracyResult, ItemRow, LogitVerdict, Verdict
from pipeline.canonical import sha256_bytes, write_whole
from pipeline.gate.verdict import judge
from pipeline.operator_evidence import (
    AskedOperators,
    Look,
    StackOperators,
    stack_operators,
    together,
)
from pipeline.policy import Gate, policy_sha256
from pipeline.result_source import ImportedRuns
from pipeline.results import FileHash
from pipeline.rows import lines
from pipeline.world.answers import Answers, Asking, Evaluator, LookAt, Serve, Served, no_library
from pipeline.world.benchmark_data import Item, chance_of
from pipeline.world.endpoint import Endpoint
from pipeline.world.evaluator import Progress, evaluate


@dataclass(frozen=True, kw_only=True)
class AccuracyTask:
    """Everything that the stage is told; the policy comes from the matrix."""

    key: str  # of what decides an answer: image, stacks, weights, data, evaluators; not the policy
    reference: str
    candidate: str
    items: Mapping[str, tuple[Item, ...]]  # by benchmark
    data: tuple[FileHash, ...]  # the files the items were read from
    gate: Gate
    conditions: Mapping[str, Mapping[str, str]]  # by stack: what must be equal
    items_file: Path  # its folder also keeps unfinished answers
    operators: Mapping[str, AskedOperators] = field(
        default_factory=dict
    )  # of stacks with a library
    imported: Mapping[str, ImportedRuns] = field(default_factory=dict)  # asked by somebody else

    @property
    def asking(self) -> Asking:
        return Asking(
            key=self.key,
            items=self.items,
            concurrency=self.gate.concurrency,
            seed=self.gate.seed,
            temperature=self.gate.temperature,
            folder=self.items_file.parent,
            imported={name: one.runs for name, one in self.imported.items()},
        )

    @property
    def chance(self) -> dict[str, float]:
        return {name: chance_of(items) for name, items in self.items.items()}

    @property
    def generated(self) -> tuple[str, ...]:
        return tuple(
            name for name, items in self.items.items() if any(item.is_written for item in items)
        )


def _nothing(_stack: str, _endpoint: Endpoint) -> None:
    """Nothing is done between serving and asking."""


def measure_accuracy(
    task: AccuracyTask,
    serve: Serve,
    progress: Progress,
    *,
    evaluator: Evaluator = evaluate,
    clock: Callable[[], float] = time.monotonic,
    known: Iterable[ItemRow] = (),
    known_seconds: Mapping[str, float] | None = None,
    known_operators: Mapping[str, StackOperators] | None = None,
    on_served: Served = _nothing,
    look_at: LookAt = no_library,
    least_runs: Callable[[], int] = lambda: 1,
) -> AccuracyResult:
    """Ask both stacks, judge, and ask what is undecided again, until the policy's last look.

    `known` are rows of an earlier run under the same `rows_key`, which took `known_seconds` of each
    stack and ran with `known_operators`; what they answer is not asked again. `on_served` is called
    each time a stack is up, before it is asked, `look_at` when it was asked and is still up;
    `least_runs` says, once both stacks were up, before how many runs nothing may pass.
    """
    stacks = (task.reference, task.candidate)
    answers = Answers(
        asking=task.asking,
        serve=serve,
        evaluator=evaluator,
        progress=progress,
        on_served=on_served,
        look_at=look_at,
        clock=clock,
    )
    answers.add_known(known)
    answers.seconds |= known_seconds or {}
    answers.add_unfinished(stacks)
    verdict = _take_looks(task, answers, known_operators or {}, least_runs)
    data = lines(answers.rows(stacks))
    write_whole(task.items_file, data)
    answers.forget_unfinished()
    return AccuracyResult(
        verdict=verdict,
        items_sha256=sha256_bytes(data),
        items_file=task.items_file.name,
        data=task.data,
        settings=_settings(task),
        stack_seconds={stack: answers.seconds.get(stack, 0.0) for stack in stacks},
        rows_key=task.asking.rows_key,
        chance=task.chance,
        generated=task.generated,
        conditions=task.conditions,
        least_runs=least_runs(),
        operators=_operators(task, answers, known_operators or {}),
        imported=task.imported,
    )


def without_items(
    task: AccuracyTask, logits: LogitVerdict, looks: Mapping[str, Look]
) -> AccuracyResult:
    """What the stage gives when the pre-gate has refused the candidate: a verdict on no item.

    `looks`: what the stack ran with that was up at that moment; none where the traces were there already.
    """
    write_whole(task.items_file, b"")
    return AccuracyResult(
        verdict=Verdict(
            status="fail" if logits.status == "fail" else "invalid",
            sentence=f"{logits.sentence}; no item was asked",
            reference=task.reference,
            candidate=task.candidate,
            alpha=task.gate.alpha,
            power_margins=task.gate.power_margins,
            items=0,
            benchmarks=(),
            faults=logits.reasons if logits.status == "invalid" else (),
            policy_sha256=policy_sha256(task.gate, task.items),
        ),
        logits=logits,
        items_sha256=sha256_bytes(b""),
        items_file=task.items_file.name,
        data=task.data,
        settings=_settings(task),
        stack_seconds={},
        operators={
            stack: stack_operators(task.operators.get(stack), (look,))
            for stack, look in looks.items()
        }
        or None,
    )


def _operators(
    task: AccuracyTask, answers: Answers, known: Mapping[str, StackOperators]
) -> dict[str, StackOperators]:
    """What both stacks ran with, in this run and behind the answers that are known."""
    found = {
        stack: stack_operators(task.operators.get(stack), answers.looks.get(stack, ()))
        for stack in (task.reference, task.candidate)
    }
    return {
        stack: together(known[stack], seen) if stack in known else seen
        for stack, seen in found.items()
    }


def _take_looks(
    task: AccuracyTask,
    answers: Answers,
    known_operators: Mapping[str, StackOperators],
    least_runs: Callable[[], int],
) -> Verdict:
    """Who goes first alternates (A B, B A, …), so that a drift of the node favours nobody."""
    order = (task.reference, task.candidate)
    benchmarks, runs = tuple(task.items), task.gate.looks[0]
    for _ in task.gate.looks:
        for stack in order:
            answers.ask(stack, benchmarks, runs)
        verdict = judge(
            answers.rows((task.reference, task.candidate)),
            reference=task.reference,
            candidate=task.candidate,
            gate=task.gate,
            chance=task.chance,
            generated=task.generated,
            conditions=task.conditions,
            operators=_operators(task, answers, known_operators),
            least_runs=least_runs(),
            imported=task.imported,
        )
        if verdict.next_runs is None:
            break
        benchmarks, runs = verdict.undecided, verdict.next_runs
        order = (order[1], order[0])
    return verdict


def _settings(task: AccuracyTask) -> dict[str, str | int | float]:
    return {
        "concurrency": task.gate.concurrency,
        "seed": task.gate.seed,
        "temperature": task.gate.temperature,
        **{
            f"{name}.max_tokens": max(item.max_tokens for item in items)
            for name, items in task.items.items()
            if items and name not in task.imported
        },
    }
