"""The words of the command line: commands, what each is for, its arguments. Their defaults are those of `Options`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.options import Options
from pipeline.stage_names import STAGES


def options_of(words: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="From a cell of matrix.yaml to a public image and a card.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _TEXTS.items():
        command = commands.add_parser(
            name, help=text, description=text, argument_default=argparse.SUPPRESS
        )
        if name not in words:
            continue  # the arguments of thirty commands take 2 ms, which every command would wait for
        for argument in _ARGUMENTS:
            if name in argument.commands:
                command.add_argument(argument.name, **argument.words)
    return Options(**vars(parser.parse_args(list(words))))


class Argument(NamedTuple):
    """One argument and the commands that take it; `words` are those of `add_argument`."""

    commands: frozenset[str]
    name: str
    words: Mapping[str, Any]


def _argument(commands: Iterable[str], name: str, text: str, **words: Any) -> Argument:
    return Argument(frozenset(commands), name, {"help": text, **words})


def _flag(commands: Iterable[str], name: str, text: str) -> Argument:
    return _argument(commands, name, text, action="store_true")


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
_AT_A_NODE = ["release", "plan", "bundle", "bisect", "operators", *_RUNNING]
_NO_CELLS = ("collect", "flageval", "gc", "page", "rollback", "simulate", "verify")
_CELLS = [name for name in _TEXTS if name not in _NO_CELLS]
_ARGUMENTS = (
    _argument(
        ["verify"], "image", "host/repository:tag or host/repository@digest", metavar="IMAGE"
    ),
    _argument(["verify"], "--key", "the public key of who released it", type=Path, metavar="FILE"),
    _flag(["verify"], "--unsigned", "accept an image that nobody signed"),
    _argument(
        ["verify"],
        "--card",
        "published files to be compared; default: the card made again from the record",
        type=Path,
        nargs="+",
        metavar="FILE",
    ),
    _argument(
        _CELLS, "cells", "a chip and a model, as globs: nvidia 'qwen*'", nargs="*", metavar="CELL"
    ),
    _argument(["flageval"], "cells", "a chip of the matrix", action="append", metavar="CHIP"),
    _argument(["flageval"], "cells", "a model of the matrix", action="append", metavar="MODEL"),
    _argument(
        ["flageval"],
        "word",
        "what to do there",
        choices=("submit", "progress", "result", "compare", "stop", "resume"),
    ),
    _argument(
        ["flageval"],
        "ids",
        "of requests; default: the newest of the cell's stack, for compare of the reference and the stack",
        nargs="*",
        metavar="ID",
    ),
    _argument(
        ["collect"],
        "folder",
        "what `node/start pack` wrote and came back",
        type=Path,
        metavar="FOLDER",
    ),
    _argument(_TEXTS, "--matrix", "default: matrix.yaml", type=Path, metavar="FILE"),
    _flag(["render", "page", *_CARDS], "--check", "write nothing; fail on drift and show it"),
    _argument(
        ["release", "plan", "login", *_RUNNING, *_CARDS, *_WITHDRAWING, "gc", "doctor"],
        "--target",
        "where the release goes: a target of the matrix",
    ),
    _flag(
        ["release", *_RUNNING],
        "--allow-partial",
        "promote the cells that passed, and record who was left out",
    ),
    _flag(
        ["release", *_RUNNING],
        "--fail-fast",
        "begin no stage of any cell after the first failure; default: other cells go on",
    ),
    _argument(
        ["release", *_RUNNING],
        "--jobs",
        "how many at once: build=1,push=4,cpu=1,gpu:nvidia=1 are the defaults",
        metavar="NAME=N,…",
    ),
    _argument(_WITHDRAWING, "--release", "whose images are withdrawn", metavar="NAME"),
    _argument(_WITHDRAWING, "--reason", "shown to everybody", metavar="TEXT"),
    _argument(_WITHDRAWING, "--by", "who withdraws; default: this user", metavar="NAME"),
    _flag(["doctor"], "--fix", "add what a Harbor lacks: its immutable tag rule"),
    _flag(["gc"], "--dry-run", "delete nothing; needed so far"),
    _argument(
        ["release", "plan", *_RUNNING],
        "--release",
        "name of the release, like 2026.11.24.1",
        metavar="NAME",
    ),
    _argument(
        ["gate"], "--release", "whose rows; default: the newest that has any", metavar="NAME"
    ),
    _argument(_CARDS, "--release", "whose record; default: the newest that can", metavar="NAME"),
    _argument(
        ["gate"], "--policy", "YAML with keys of `gate` to be changed", type=Path, metavar="FILE"
    ),
    _argument(["release", "plan"], "--until", "stop after it", choices=STAGES, metavar="STAGE"),
    _flag(["release"], "--dry-run", "print the plan and stop"),
    _flag(["plan"], "--json", "print the plan as JSON"),
    _flag(["plan"], "--explain", "show what each stage's key is made of"),
    _flag(["plan"], "--github", "give the cells to run to a workflow's jobs"),
    _flag(_CARDS, "--publish", "commit changed cards of promoted releases"),
    _flag(
        ["release", "promote", "publish", "doctor", *_CARDS, *_WITHDRAWING],
        "--yes",
        "consent to a target other than local",
    ),
    _flag(_RUNNING, "--again", "run this stage even when nothing changed"),
    _argument(_AT_A_NODE, "--node", "a node without network of the matrix", metavar="NAME"),
    _flag(_AT_A_NODE, "--published", "on that node: the published image, carried whole"),
    _argument(["bundle"], "--pieces", "largest piece; default: 60MiB", metavar="SIZE"),
    _argument(["bisect", "operators"], "--target", "whose staging registry holds the image"),
    _argument(
        ["bisect", "operators", "flageval"], "--stack", "default: the released one", metavar="NAME"
    ),
    _argument(
        ["flageval"],
        "--url",
        "submit: your server, as the service reaches it, like http://192.0.2.7:9010",
        metavar="URL",
    ),
    _argument(
        ["flageval"],
        "--tokenizer",
        "submit: where the service finds it; default: the weights' folder of the matrix",
        metavar="PATH",
    ),
    _argument(
        ["flageval"],
        "--layout",
        "submit: form of the request, which is disputed (docs/evaluators.md)",
        choices=("flat", "eval_infos"),
    ),
    _argument(["bisect"], "--minutes", "budget of this run; default: 60", type=float),
    _argument(["bisect"], "--level", "what counts as failing", choices=("fail", "warn")),
    _flag(["bisect"], "--restart", "a new engine for every probe"),
    _argument(["bisect"], "--parallel", "engines side by side", type=int, metavar="N"),
    _argument(["bisect"], "--gpus", "to spread them over", type=int, metavar="N"),
    _flag(["bisect"], "--apply", "write what was found into the matrix"),
    _argument(["simulate"], "--draws", "simulated releases a cell of the table", type=int),
    _argument(["simulate"], "--seed", "of the random numbers", type=int),
)
