"""One release of a toy cell as a program of its own, in the folder it is started in: what a test looks for secrets in.

    python -m tests.secret_flow RELEASE

Render, build, promote and publish are real, on the engine and the registry of the target; the stages that would serve
a model are told. Its exit code is 1 where a stage ended with an error.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from rich.console import Console

from pipeline import release as flow_module
from pipeline import stage_run
from pipeline.cell_release import World
from pipeline.reporter import Reporter
from pipeline.resources import Resources
from pipeline.steps import FLOW
from pipeline.world.engine import Engine
from pipeline.world.hubs import hubs_of
from pipeline.world.registry import Registry
from tests.projects import project_in
from tests.releases import Flow

CELL = ("loom", "poet")


class RealFlow(Flow):
    """The flow of the tests on a real engine and a real registry."""

    @property
    def world(self) -> World:
        return World(
            engine=cache(Engine.connect),
            registry=cache(Registry),
            hubs=lambda: hubs_of(self.project.target("local").hubs, self.project.root),
            revision="test",
            report=Reporter(Console(width=200)),
            resources=Resources(),
        )


def run(release: str) -> int:
    flow = RealFlow(project_in(Path.cwd()))
    vars(flow_module)["FLOW"] = {**flow.table(), "build": FLOW["build"]}
    vars(stage_run)["is_whole"] = lambda *_: True  # told weights lie nowhere
    outcomes = flow.go(*CELL, release=release)
    for outcome in outcomes:
        print(outcome.stage, outcome.status, outcome.error or "", flush=True)
    return int(any(outcome.error for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1]))
