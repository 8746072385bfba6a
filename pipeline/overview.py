"""The tables at the end: what a plan would do, and how a release ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipeline.plan import Action
from pipeline.record import Record
from pipeline.reporter import Reporter

if TYPE_CHECKING:
    from pipeline.stage_run import Outcome


def print_json(actions: Sequence[Action], *, with_parts: bool) -> None:
    """For programs; with what each key is made of, where that was asked for."""
    told = [
        {**action.model_dump(), **({"parts": dict(action.parts)} if with_parts else {})}
        for action in actions
    ]
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def print_plan(actions: Sequence[Action], report: Reporter) -> None:
    rows = [
        (
            action.cell,
            action.stage,
            action.kind,
            "; ".join(action.reasons) if action.kind == "run" else f"since {action.source}",
        )
        for action in actions
    ]
    report.table(("cell", "stage", "", "why"), rows)


def print_excluded(excluded: Mapping[str, str], report: Reporter) -> None:
    """Cells that were asked for and are none, each with the reason."""
    if excluded:
        report.say(f"\nexcluded: {len(excluded)}")
        report.table(("cell", "why"), list(excluded.items()))


def print_keys(
    actions: Sequence[Action], past: Mapping[str, Sequence[Record]], report: Reporter
) -> None:
    """Each part of each stage's key; where the stage ran before, what it was then."""
    for action in actions:
        ran = [stage for record in past[action.cell] if (stage := record.stages.get(action.stage))]
        before = ran[0].parts if ran else {}
        report.say(
            f"\n{action.cell} {action.stage}: {action.kind}, {'; '.join(action.reasons)}\n"
            f"key {action.key or 'not known before an earlier stage has run'}"
        )
        names = sorted({*action.parts, *before})
        rows = [
            (name, action.parts.get(name, "(none)"), before.get(name, "(none)")) for name in names
        ]
        report.table(
            ("part", "now", "before" if ran else ""),
            [(name, now, "" if not ran or now == then else then) for name, now, then in rows],
        )


def print_outcomes(outcomes: Sequence[Outcome], release: str, report: Reporter) -> None:
    rows = [
        (
            done.cell,
            done.stage,
            done.status,
            f"{done.seconds:.1f}" if done.seconds else "",
            done.why,
        )
        for done in outcomes
    ]
    report.say(f"\nrelease {release}")
    report.table(("cell", "stage", "result", "seconds", "why"), rows)


def print_images(records: Sequence[Record], report: Reporter) -> None:
    """What was built of each cell, and the verdict on it; nothing where no image was built."""
    rows = []
    for record in records:
        accuracy = record.stages.accuracy and record.stages.accuracy.result
        if record.image:
            digest = record.image.manifest_digest or record.image.config_digest
            rows.append(
                (record.cell, digest, accuracy.verdict.sentence if accuracy else "no verdict")
            )
    if rows:
        report.say("")
        report.table(("cell", "image", "verdict"), rows)
