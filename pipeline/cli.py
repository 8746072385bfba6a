"""The command line. The only place that prints failures and picks exit codes."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from pipeline import noop
from pipeline.errors import PipelineError
from pipeline.options import Options
from pipeline.reporter import Reporter
from pipeline.stage_names import STAGES
from pipeline.workers import INTERRUPTED


def main(words: Sequence[str], console: Console | None = None) -> int:
    """Run one command; its exit code. Anything but a PipelineError is a bug and keeps its traceback."""
    options = _options(words)
    reporter = Reporter(console or Console())
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if noop.may_be_known(options) and (done := noop.known(options)):
            noop.tell(done, reporter)
            return 0
        from pipeline.canonical import room_for
        from pipeline.commands import COMMANDS  # with the matrix, its libraries and every record

        gc.freeze()
        gc.enable()
        with room_for(options.command):
            return COMMANDS[options.command](options, reporter)
    except PipelineError as error:
        reporter.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; run the same command again to go on\n")
        return INTERRUPTED


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
        if name in words:  # those of thirty others would take longer than all else
            _add_arguments(name, command)
    return Options(**vars(parser.parse_args(list(words))))


@dataclass(frozen=True)
class Argument:
    """One argument and the commands that take it; `words` are those of `add_argument`."""

    commands: frozenset[str]
    name: str
    words: Mapping[str, Any]


def _argument(commands: Iterable[str], name: str, **words: Any) -> Argument:
    return Argument(frozenset(commands), name, words)


def _add_arguments(name: str, command: argparse.ArgumentParser) -> None:
    for argument in _ARGUMENTS:
        if name in argument.commands:
            command.add_argument(argument.name, **argument.words)


_TEXTS = {
    "release": "Take cells through the whole flow, to the target's registry and hubs.",
    "plan": "Say for each cell and stage whether it runs, and why. No Docker, no network.",
    "lock": "Resolve what moves (bases, weights, requirements) into matrix.lock and images/.",
    "bundle": "Pack what a node without network needs for one cell, in pieces.",
    "collect": "Verify and merge the records that came back from a node.",
    "login": "Log in to the registries of a target, with what the environment says.",
    "render": "Render images/ from matrix.yaml and templates/.",
    "page": "Write the page of the whole matrix, docs/matrix.md and docs/matrix.html.",
    "bisect": "Find the operators that make a cell's stack fail the pre-gate.",
    "operators": "Check every operator of a cell's stack against the CPU, while loading and serving.",
    "build": "Build the images of cells, unless the registry has them.",
    "weights": "Fetch (and convert) the weights of cells.",
    "smoke": "Serve cells for real and check them.",
    "accuracy": "Compare the released stack with the reference, item by item.",
    "gate": "Judge stored rows again, under the matrix's policy or another. No Docker.",
    "simulate": "Judge the judge: how often its policy passes and fails simulated releases.",
    "flageval": "Have the FlagEval service evaluate a server of yours; it gives scores, never a verdict.",
    "performance": "Measure throughput and latency of every stack.",
    "rehearse": "Run the commands of cells' cards as printed, the way a reader would.",
    "verify": "Check an image, its record, signatures and card against each other; needs no matrix.",
    "attest": "Sign what is known of images, and attach it to them.",
    "card": "Write the card of a cell anew from its newest record. Runs no stage.",
    "cards": "Write all cards anew from their records, show what changed, publish it.",
    "promote": "Copy tested images by digest to the public repositories and tag them: all cells or none.",
    "rollback": "Take a whole release back: its tag moves backwards, and a tombstone at every image.",
    "yank": "Withdraw cells of a release: a tombstone at each image, and `latest` away from it.",
    "gc": "Say which images in staging no record, card, index or public tag names.",
    "doctor": "Look at everything that a release needs, and say what is wrong and what to do.",
    "publish": "Publish the cards of promoted cells to the target's hubs.",
}

_RUNNING = [stage for stage in STAGES if stage not in ("render", "card")]
_CARDS = ("card", "cards")
_WITHDRAWING = ("rollback", "yank")
_NO_CELLS = ("collect", "flageval", "gc", "page", "rollback", "simulate", "verify")
_CELLS = [name for name in _TEXTS if name not in _NO_CELLS]
_ARGUMENTS = (
    _argument(
        ["verify"], "image", metavar="IMAGE", help="host/repository:tag or host/repository@digest"
    ),
    _argument(
        ["verify"], "--key", type=Path, metavar="FILE", help="the public key of who released it"
    ),
    _argument(
        ["verify"], "--unsigned", action="store_true", help="accept an image that nobody signed"
    ),
    _argument(
        ["verify"],
        "--card",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="published files to be compared; default: the card made again from the record",
    ),
    _argument(
        _CELLS,
        "cells",
        nargs="*",
        metavar="CELL",
        help="a chip and a model, as globs: nvidia 'qwen*'",
    ),
    _argument(
        ["flageval"], "cells", nargs=2, metavar=("CHIP", "MODEL"), help="one cell of the matrix"
    ),
    _argument(
        ["flageval"],
        "word",
        choices=("submit", "progress", "result", "compare", "stop", "resume"),
        help="what to do there",
    ),
    _argument(
        ["flageval"],
        "ids",
        nargs="*",
        metavar="ID",
        help="of requests; default: the newest of the cell's stack, for compare of the reference and the stack",
    ),
    _argument(
        ["collect"],
        "folder",
        type=Path,
        metavar="FOLDER",
        help="what `node/start pack` wrote and came back",
    ),
    _argument(
        _TEXTS,
        "--matrix",
        type=Path,
        default=Path("matrix.yaml"),
        metavar="FILE",
        help="default: matrix.yaml",
    ),
    _argument(
        ["render", "page", *_CARDS],
        "--check",
        action="store_true",
        help="write nothing; fail on drift and show it",
    ),
    _argument(
        ["release", "plan", "login", *_RUNNING, *_CARDS, *_WITHDRAWING, "gc", "doctor"],
        "--target",
        default="local",
        help="where the release goes: a target of the matrix",
    ),
    _argument(
        ["release", *_RUNNING],
        "--allow-partial",
        action="store_true",
        help="promote the cells that passed, and record who was left out",
    ),
    _argument(
        ["release", *_RUNNING],
        "--fail-fast",
        action="store_true",
        help="begin no stage of any cell after the first failure; default: other cells go on",
    ),
    _argument(
        ["release", *_RUNNING],
        "--jobs",
        default="",
        metavar="NAME=N,…",
        help="how many at once: build=1,push=4,cpu=1,gpu:nvidia=1 are the defaults",
    ),
    _argument(_WITHDRAWING, "--release", metavar="NAME", help="whose images are withdrawn"),
    _argument(_WITHDRAWING, "--reason", default="", metavar="TEXT", help="shown to everybody"),
    _argument(_WITHDRAWING, "--by", metavar="NAME", help="who withdraws; default: this user"),
    _argument(
        ["doctor"],
        "--fix",
        action="store_true",
        help="add what a Harbor lacks: its immutable tag rule",
    ),
    _argument(["gc"], "--dry-run", action="store_true", help="delete nothing; needed so far"),
    _argument(
        ["release", "plan", *_RUNNING],
        "--release",
        metavar="NAME",
        help="name of the release, like 2026.11.24.1",
    ),
    _argument(
        ["gate"], "--release", metavar="NAME", help="whose rows; default: the newest that has any"
    ),
    _argument(
        _CARDS, "--release", metavar="NAME", help="whose record; default: the newest that can"
    ),
    _argument(
        ["gate"],
        "--policy",
        type=Path,
        metavar="FILE",
        help="YAML with keys of `gate` to be changed",
    ),
    _argument(
        ["release", "plan"],
        "--until",
        default="publish",
        choices=STAGES,
        metavar="STAGE",
        help="stop after it",
    ),
    _argument(["release"], "--dry-run", action="store_true", help="print the plan and stop"),
    _argument(["plan"], "--json", action="store_true", help="print the plan as JSON"),
    _argument(
        ["plan"], "--explain", action="store_true", help="show what each stage's key is made of"
    ),
    _argument(
        ["plan"], "--github", action="store_true", help="give the cells to run to a workflow's jobs"
    ),
    _argument(
        _CARDS, "--publish", action="store_true", help="commit changed cards of promoted releases"
    ),
    _argument(
        ["release", "promote", "publish", "doctor", *_CARDS, *_WITHDRAWING],
        "--yes",
        action="store_true",
        help="consent to a target other than local",
    ),
    _argument(
        _RUNNING, "--again", action="store_true", help="run this stage even when nothing changed"
    ),
    _argument(
        ["release", "plan", "bundle", "bisect", "operators", *_RUNNING],
        "--node",
        metavar="NAME",
        help="a node without network of the matrix",
    ),
    _argument(
        ["release", "plan", "bundle", "bisect", "operators", *_RUNNING],
        "--published",
        action="store_true",
        help="on that node: the published image, carried whole",
    ),
    _argument(
        ["bundle"],
        "--pieces",
        default="60MiB",
        metavar="SIZE",
        help="largest piece; default: 60MiB",
    ),
    _argument(
        ["bisect", "operators"],
        "--target",
        default="local",
        help="whose staging registry holds the image",
    ),
    _argument(
        ["bisect", "operators", "flageval"],
        "--stack",
        metavar="NAME",
        help="default: the released one",
    ),
    _argument(
        ["flageval"],
        "--url",
        metavar="URL",
        help="submit: your server, as the service reaches it, like http://192.0.2.7:9010",
    ),
    _argument(
        ["flageval"],
        "--tokenizer",
        metavar="PATH",
        help="submit: where the service finds it; default: the weights' folder of the matrix",
    ),
    _argument(
        ["flageval"],
        "--layout",
        default="flat",
        choices=("flat", "eval_infos"),
        help="submit: form of the request, which is disputed (docs/evaluators.md)",
    ),
    _argument(
        ["bisect"], "--minutes", type=float, default=60, help="budget of this run; default: 60"
    ),
    _argument(
        ["bisect"],
        "--level",
        default="fail",
        choices=("fail", "warn"),
        help="what counts as failing",
    ),
    _argument(["bisect"], "--restart", action="store_true", help="a new engine for every probe"),
    _argument(
        ["bisect"], "--parallel", type=int, default=1, metavar="N", help="engines side by side"
    ),
    _argument(["bisect"], "--gpus", type=int, default=1, metavar="N", help="to spread them over"),
    _argument(
        ["bisect"], "--apply", action="store_true", help="write what was found into the matrix"
    ),
    _argument(
        ["simulate"],
        "--draws",
        type=int,
        default=3000,
        help="simulated releases a cell of the table",
    ),
    _argument(["simulate"], "--seed", type=int, default=0, help="of the random numbers"),
)
