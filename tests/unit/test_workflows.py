"""The workflows hold no logic: every step is one command of ours, which the command line takes."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml

from pipeline.arguments import options_of
from pipeline.flow import ALLOW_PARTIAL
from tests.projects import ROOT

WORKFLOWS = {
    path.stem: yaml.safe_load(path.read_text("utf-8"))
    for path in sorted((ROOT / ".github/workflows").glob("*.yml"))
}
RELEASE = WORKFLOWS["release"]


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def commands() -> list[str]:
    return [step["run"] for step in steps(RELEASE) if "run" in step]


@pytest.mark.parametrize("line", commands())
def test_a_step_is_a_nox_session_that_a_person_can_run(line: str) -> None:
    words = shlex.split(line)
    assert words[:3] == ["./bootstrap", "nox", "-s"]
    assert words[4] == "--"
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.M)
    assert words[3] in sessions
    options = options_of([words[3], *words[5:]])
    assert options.target == "$TARGET"


def test_the_jobs_follow_one_another_and_only_promotion_and_cards_are_behind_the_environment() -> (
    None
):
    jobs = RELEASE["jobs"]
    assert {name: job.get("needs") for name, job in jobs.items()} == {
        "plan": None,
        "cell": "plan",
        "promote": ["plan", "cell"],
        "cards": "promote",
    }
    assert [name for name, job in jobs.items() if job.get("environment") == "release"] == [
        "promote",
        "cards",
    ]
    assert jobs["cell"]["runs-on"] == ["self-hosted", "${{ matrix.runner }}"]


def test_a_release_that_was_cut_off_goes_on_and_a_cell_that_failed_may_be_left_out() -> None:
    jobs = RELEASE["jobs"]
    assert "if" not in jobs["cell"]  # each cell hands over its record, also with nothing to do
    (checkout,) = [step for step in jobs["cell"]["steps"] if "checkout" in step.get("uses", "")]
    assert checkout["with"]["clean"] is False  # out/ is what it goes on with
    asked = "inputs.allow_partial"
    assert f"(needs.cell.result == 'success' || {asked})" in jobs["promote"]["if"]
    given = [step.get("env", {}).get(ALLOW_PARTIAL) for step in jobs["promote"]["steps"]]
    assert [one for one in given if one] == [f"${{{{ {asked} }}}}"]
    # A condition of its own, for GitHub skips what comes after a failed job, however far behind.
    assert "needs.promote.result == 'success'" in jobs["cards"]["if"]
    assert True in RELEASE  # `on` is a truth value of YAML 1.1
    inputs = RELEASE[True]["workflow_dispatch"]["inputs"]
    assert inputs["allow_partial"]["type"] == "boolean"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit_and_permissions_are_read_only(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in used)


def test_secrets_are_given_to_single_steps() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    given = [value for step in steps(RELEASE) for value in step.get("env", {}).values()]
    assert len(re.findall(r"secrets\.", text)) == len([v for v in given if "secrets." in v]) == 8
