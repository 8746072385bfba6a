"""The command line. The only place that prints failures and picks exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from pipeline.commands import COMMANDS, Options
from pipeline.errors import PipelineError
from pipeline.record import STAGES
from pipeline.reporter import Reporter

INTERRUPTED = 130


def main(words: Sequence[str], console: Console | None = None) -> int:
    """Run one command; its exit code. Anything but a PipelineError is a bug and keeps its traceback."""
    options = _options(words)
    reporter = Reporter(console or Console())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return COMMANDS[options.command](options, reporter)
    except PipelineError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; run the same command again to go on\n")
        return INTERRUPTED


def print_error(error: PipelineError) -> None:
    sys.stderr.write(f"error: {error}\n")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options(words: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="From a cell of matrix.yaml to a public image and a card.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _TEXTS.items():
        command = commands.add_parser(name, help=text, description=text)
        _add_arguments(name, command)
        if name == "bisect":
            _add_search_arguments(command.add_argument)
    found = vars(parser.parse_args(list(words)))
    found["matrix"] = Path(found["matrix"])
    return Options(**found)


def _add_search_arguments(add: Callable[..., argparse.Action]) -> None:
    add("--target", default="local", help="whose staging registry holds the image")
    add("--stack", metavar="NAME", help="default: the released one")
    add("--minutes", type=float, default=60, help="budget of this run (default: 60)")
    add("--level", default="fail", choices=("fail", "warn"), help="what counts as failing")
    add("--restart", action="store_true", help="a new engine for every probe of the search")
    add("--parallel", type=int, default=1, metavar="N", help="engines side by side")
    add("--gpus", type=int, default=1, metavar="N", help="to spread them over")


def _add_arguments(name: str, command: argparse.ArgumentParser) -> None:
    add: Callable[..., argparse.Action] = command.add_argument
    if name == "simulate":
        add("--draws", type=int, default=3000, help="simulated releases a cell of the table")
        add("--seed", type=int, default=0, help="of the random numbers")
    else:
        add("cells", nargs="*", metavar="CELL", help="a chip and a model, as globs: nvidia 'qwen*'")
    add("--matrix", default="matrix.yaml", metavar="FILE", help="default: matrix.yaml")
    if name == "render":
        add("--check", action="store_true", help="write nothing; fail on drift and show it")
    if name in ("release", "plan", *STAGES) and name != "render":
        add("--target", default="local", help="where the release goes: a target of the matrix")
        add("--release", metavar="NAME", help="name of the release, like 2026.11.24.1")
    if name == "gate":
        add("--release", metavar="NAME", help="whose rows; default: the newest that has any")
        add("--policy", type=Path, metavar="FILE", help="YAML with keys of `gate` to be changed")
    if name in ("release", "plan"):
        add("--until", default="publish", choices=STAGES, metavar="STAGE", help="stop after it")
    if name == "release":
        add("--dry-run", action="store_true", help="print the plan and stop")
    if name == "plan":
        add("--json", action="store_true", help="print the plan as JSON")
    if name in ("release", "promote", "publish"):
        add("--yes", action="store_true", help="consent to a target other than local")
    if name in STAGES and name != "render":
        add("--again", action="store_true", help="run this stage even when nothing changed")


_TEXTS = {
    "release": "Take cells through the whole flow, to the target's registry and hubs.",
    "plan": "Say for each cell and stage whether it runs, and why. No Docker, no network.",
    "lock": "Resolve what moves (bases, weights, requirements) into matrix.lock and images/.",
    "render": "Render images/ from matrix.yaml and templates/.",
    "bisect": "Find the operators that make a cell's stack fail the pre-gate.",
    "build": "Build the images of cells, unless the registry has them.",
    "weights": "Fetch (and convert) the weights of cells.",
    "smoke": "Serve cells for real and check them.",
    "accuracy": "Compare the released stack with the reference, item by item.",
    "gate": "Judge stored rows again, under the matrix's policy or another. No Docker.",
    "simulate": "Judge the judge: how often its policy passes and fails simulated releases.",
    "performance": "Measure throughput and latency of every stack.",
    "card": "Write the cards of cells from their records.",
    "promote": "Copy tested images by digest to the public repository, and tag them.",
    "publish": "Publish the cards of promoted cells to the target's hubs.",
}
