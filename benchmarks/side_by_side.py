"""Two or more ways to the same end, timed in turns on one machine; figures go into results/ and the README.

python -m benchmarks.side_by_side      write the table of benchmarks/README.md from benchmarks/results/*.json
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.world.node import processor

HERE = Path(__file__).parent
README = HERE / "README.md"
TABLE = re.compile(
    r"(?<=<!-- side by side: written by a program -->\n).*?(?=<!-- end -->)", re.DOTALL
)


class Timed(BaseModel):
    model_config = ConfigDict(frozen=True)

    way: str
    seconds: tuple[float, ...]  # wall clock of each run, in order; the warm-up is not among them

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


class SideBySide(BaseModel):
    """What one comparison saw. The first way is ours; `load` is the machine's, one minute's mean, before each run."""

    model_config = ConfigDict(frozen=True)

    what: str
    command: str
    machine: str
    versions: dict[str, str]
    load: tuple[float, ...]
    ways: tuple[Timed, ...]
    notes: dict[str, str] = {}


def in_turns(
    ways: Mapping[str, Callable[[], float]], runs: int, say: Callable[[str], None] = print
) -> tuple[tuple[Timed, ...], tuple[float, ...]]:
    """One warm-up of each way, then each in turn, so that noise of the machine meets all; seconds, and loads."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    loads = []
    for number in range(runs + 1):
        loads.append(round(os.getloadavg()[0], 2))
        for way, run in ways.items():
            took = run()
            say(f"{'warm-up' if number == 0 else f'run {number}'}, {way}: {took:.2f} s")
            if number:
                seconds[way].append(round(took, 3))
    return tuple(Timed(way=way, seconds=tuple(took)) for way, took in seconds.items()), tuple(loads)


def version(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def keep(name: str, found: SideBySide) -> None:
    """Write the figures, and the table anew."""
    path = HERE / "results" / f"{name}.json"
    path.write_text(found.model_dump_json(indent=2) + "\n", "utf-8")
    README.write_text(TABLE.sub(lambda _: table(results()), README.read_text("utf-8")), "utf-8")


def results() -> list[SideBySide]:
    paths = sorted((HERE / "results").glob("*.json"))
    return [SideBySide.model_validate(json.loads(path.read_text("utf-8"))) for path in paths]


def table(found: Sequence[SideBySide]) -> str:
    head = "| what | way | median s | least to most | as long as ours |\n|---|---|---|---|---|\n"
    return head + "".join(_rows(one) for one in found)


def _rows(one: SideBySide) -> str:
    ours = one.ways[0].median_s
    return "".join(
        f"| {one.what if way is one.ways[0] else ''} | {way.way} | {way.median_s:.2f} "
        f"| {min(way.seconds):.2f} to {max(way.seconds):.2f} | {way.median_s / ours:.1f} × |\n"
        for way in one.ways
    )


def machine() -> str:
    return f"{os.cpu_count()} × {processor()}, Linux {platform.release()}"


if __name__ == "__main__":
    README.write_text(TABLE.sub(lambda _: table(results()), README.read_text("utf-8")), "utf-8")
