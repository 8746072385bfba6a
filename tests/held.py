"""Two cells of which each holds a container in its stage `attest`, until somebody interrupts.

    python -m tests.held IMAGE

runs in a folder that `tests.finished.write_project` wrote. It is the command `release`.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from pipeline import release as flow_module
from pipeline.cell_release import CellRelease, Ended
from pipeline.chip import Run
from pipeline.cli import main
from pipeline.errors import StageRefusedError
from pipeline.reporter import StageLog
from pipeline.workers import leave
from pipeline.world.command import run as run_program
from tests.finished import RELEASE, told_stages


def _hold(run: CellRelease, log: StageLog) -> Ended:
    """The first model waits in a container, the second for a program, with a container and a thread beside it."""
    name = f"flagrelease-held-{run.cell.model_id}-{os.getpid()}"
    with run.world.engine().container(
        sys.argv[1], ["sleep", "infinity"], run=Run(network="none"), name=name, volumes={}
    ) as container:
        log.say("is held")
        if run.cell.model_id == "model0":
            container.execute(["sleep", "300"])
        else:
            with ThreadPoolExecutor(1) as pool:  # like an upload that goes on
                pool.submit(time.sleep, 300)
                run_program(["sleep", f"300.{os.getpid()}"], doing="waiting", hint="")
    raise StageRefusedError("nobody interrupted it", where=run.cell.id)


if __name__ == "__main__":
    vars(flow_module)["FLOW"] = {**told_stages(), "attest": _hold}
    words = ["release", "chip0", "model[01]", "--release", RELEASE, "--until", "attest"]
    leave(main(words))
