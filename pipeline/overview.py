"""The tables at the end: what a plan would do, and how a release ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.plan import Action
from pipeline.record import Record
from pipeline.reporter import Reporter

if TYPE_CHECKING:
    from pipeline.release import Outcome


def print_plan(actions: Sequence[Action], report: Reporter, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps([action.model_dump() for action in actions], indent=2) + "\n")
        return
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
