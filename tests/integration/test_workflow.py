"""The release workflow, job by job: its own commands in its own order, each job in a checkout of its own.

What GitHub would do between them is done here: values of expressions, outputs, artifacts. The job of the cell finds
what a finished release measured, under a new name: nothing changed, so nothing is measured again.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from pipeline.record import Record, RecordStore
from pipeline.world.registry import Registry
from tests.integration.conftest import (
    CELL,
    ROOT,
    Checkout,
    copy_of_project,
    run_with_our_programs,
    take_over_environment,
)

JOBS: Mapping[str, Any] = yaml.safe_load(
    (ROOT / ".github/workflows/release.yml").read_text("utf-8")
)["jobs"]
RELEASE = (
    f"2026.11.24.{int(time.time())}"  # the registry of this machine may outlast a run of the tests
)
ENVIRONMENT = {"CELLS": "/".join(CELL), "RELEASE": RELEASE, "TARGET": "local"}
EXPRESSION = re.compile(r"\$\{\{ (?:matrix|env)\.(\w+) \}\}")


@dataclass
class Workflow:
    """The side of GitHub: artifacts by name, and what jobs gave out."""

    folder: Path
    outputs: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)

    def run(self, job: str, root: Path, values: Mapping[str, str]) -> None:
        known = {**ENVIRONMENT, **values}
        for name, text in JOBS[job].get("env", {}).items():
            known[name] = self._filled(text, known)
        for step in JOBS[job]["steps"]:
            inputs = {
                name: self._filled(text, known) for name, text in step.get("with", {}).items()
            }
            action = step.get("uses", "").partition("@")[0]
            if "run" in step:
                self._command(job, step["run"], root, known)
            elif action == "actions/upload-artifact":
                shutil.copytree(root / inputs["path"], self.folder / "artifacts" / inputs["name"])
            elif action == "actions/download-artifact":
                self._download(root, inputs)
            else:
                assert action == "actions/checkout"

    def _command(self, job: str, line: str, root: Path, values: Mapping[str, str]) -> None:
        files = {
            name: self.folder / f"{job}.{name}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")
        }
        given = {name: str(path) for name, path in files.items()}
        done = run_with_our_programs(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            root,
            {**values, **given, "GITHUB_ACTIONS": "true"},
            timeout_s=900,
        )
        assert done.returncode == 0, f"{job}: {line}\n{done.stdout}"
        if files["GITHUB_OUTPUT"].exists():
            lines = files["GITHUB_OUTPUT"].read_text().splitlines()
            self.outputs |= {
                name: value for name, _, value in (text.partition("=") for text in lines)
            }
        if files["GITHUB_STEP_SUMMARY"].exists():
            self.summaries[job] = files["GITHUB_STEP_SUMMARY"].read_text()

    def _download(self, root: Path, inputs: Mapping[str, str]) -> None:
        wanted = inputs.get("pattern") or inputs["name"]
        for artifact in (self.folder / "artifacts").iterdir():
            if fnmatch(artifact.name, wanted):
                shutil.copytree(artifact, root / inputs["path"], dirs_exist_ok=True)

    def _filled(self, text: object, values: Mapping[str, str]) -> str:
        lower = {name.lower(): value for name, value in values.items()}
        return EXPRESSION.sub(lambda hit: lower[hit[1].lower()], str(text))


def checkout(folder: Path) -> Path:
    root = copy_of_project(folder).root
    take_over_environment(root)
    return root


def record_in(root: Path) -> Record:
    (found,) = (one for one in RecordStore(root / "out").of_cell(*CELL) if one.release == RELEASE)
    return found


def test_the_jobs_of_the_workflow_end_with_a_public_image_and_a_published_card(
    changed: Checkout, tmp_path: Path
) -> None:
    workflow = Workflow(tmp_path / "github")
    workflow.folder.mkdir()
    workflow.run("plan", checkout(tmp_path / "plan"), {})
    [cell] = json.loads(workflow.outputs["cells"])["include"]
    assert cell == {"chip": CELL[0], "model": CELL[1], "runner": CELL[0]}

    take_over_environment(changed.root)
    workflow.run("cell", changed.root, cell)
    measured = record_in(changed.root)

    # Cut off here. The next run under the name has nothing to do for the cell, and hands its record over.
    workflow = Workflow(tmp_path / "again")
    workflow.folder.mkdir()
    workflow.run("plan", checkout(tmp_path / "plan again"), {})
    assert json.loads(workflow.outputs["cells"])["include"] == [cell]
    workflow.run("cell", changed.root, cell)
    assert record_in(changed.root) == measured
    assert measured.stages.promote is None
    assert measured.image is not None

    promoting = checkout(tmp_path / "promote")
    workflow.run("promote", promoting, {})
    promoted = record_in(promoting)
    assert promoted.stages.accuracy == measured.stages.accuracy
    assert not (promoting / "out/share" / CELL[1]).exists()  # nothing is fetched or served there
    registry = Registry("127.0.0.1:5000")
    assert (
        registry.head("flagrelease/flagrelease_cpu_smollm2", RELEASE)
        == measured.image.manifest_digest
    )
    registry.close()

    publishing = checkout(tmp_path / "cards")
    workflow.run("cards", publishing, {})
    card = (publishing / "out/hub" / measured.about.hub_name / "README.md").read_bytes()
    assert card == (changed.folder() / "card.en.md").read_bytes()

    assert str(measured.image.manifest_digest) in workflow.summaries["cell"]
    assert set(workflow.summaries) == {"plan", "cell", "promote"}
