"""performance: `vllm bench serve` inside the container, for every stack at every level of the matrix.

What a stack did is kept as soon as it was measured whole, so that a run that was cut off goes on with the next one.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.canonical import canonical, write_whole
from pipeline.cell import Cell
from pipeline.errors import StageRefusedError
from pipeline.model import LoadProfile
from pipeline.results import Frozen, LoadResult, PerformanceRatio, PerformanceResult, Start
from pipeline.world.server import Served

RESULTS = "/tmp"  # noqa: S108 -- inside a container of our own

BENCH = ("vllm", "bench", "serve")
# The same without its start, which takes longer than a small load: all loads in one process.
_EVERY_LOAD = """
import argparse, json, sys
from vllm.benchmarks.serve import add_cli_args, main
for words in json.loads(sys.argv[1]):
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args(words))
"""

READ = ("completed", "output_throughput", "total_token_throughput", "mean_ttft_ms", "mean_tpot_ms")


class StackSpeed(Frozen):
    """One stack under every load, in one start of it."""

    key: str  # of the stage: image, weights, load …
    start: Start
    warm_up_seconds: float | None
    loads: tuple[LoadResult, ...]


@dataclass(frozen=True)
class Kept:
    """Stacks that a run measured before it was cut off: a file each in `folder`, until the stage is done."""

    folder: Path
    key: str

    def find(self, stack: str) -> StackSpeed | None:
        try:
            found = StackSpeed.model_validate_json(self._path(stack).read_bytes())
        except (FileNotFoundError, ValueError):  # ValueError: of another version of this project
            return None
        return found if found.key == self.key else None

    def keep(self, stack: str, speed: StackSpeed) -> None:
        write_whole(self._path(stack), canonical(speed.model_dump(mode="json")))

    def forget(self) -> None:
        for path in self.folder.glob("speed.*.json"):
            path.unlink()

    def _path(self, stack: str) -> Path:
        return self.folder / f"speed.{stack}.json"


def performance(
    cell: Cell,
    stacks: tuple[str, ...],
    serve: Callable[[str], AbstractContextManager[tuple[Served, Start]]],
    kept: Kept,
    say: Callable[[str], None],
) -> PerformanceResult:
    """Raises StageRefusedError when a load run fails or loses requests."""
    speeds: dict[str, StackSpeed] = {}
    warms_up = any(cell.kernel_caches(stack) for stack in stacks)
    for stack in stacks:
        speed = kept.find(stack)
        if speed is None:
            with serve(stack) as (served, start):
                warm_up = _warm_up(cell, stack, served, say) if warms_up else None
                loads = []
                for concurrency in cell.load.concurrency:
                    say(f"{stack}: {concurrency} at once")
                    loads.append(_load(cell, stack, concurrency, served))
            speed = StackSpeed(
                key=kept.key, start=start, warm_up_seconds=warm_up, loads=tuple(loads)
            )
            kept.keep(stack, speed)
        else:
            say(f"{stack}: measured before the last run was cut off")
        speeds[stack] = speed
    result = compared(tuple(load for speed in speeds.values() for load in speed.loads), cell)
    kept.forget()
    return result.model_copy(
        update={
            "starts": tuple(speed.start for speed in speeds.values()),
            "warm_up_seconds": {
                stack: speed.warm_up_seconds
                for stack, speed in speeds.items()
                if speed.warm_up_seconds is not None
            },
        }
    )


def _warm_up(cell: Cell, stack: str, served: Served, say: Callable[[str], None]) -> float:
    """The same load once, uncounted: what is compiled and tuned at its first use is no speed of the stack."""
    started = time.monotonic()
    levels = cell.load.concurrency
    say(f"{stack}: warming up, {', '.join(map(str, levels))} at once")
    loads = [bench_command(cell, concurrency)[len(BENCH) :] for concurrency in levels]
    command = ["python", "-c", _EVERY_LOAD, json.dumps(loads)]
    code, output = served.container.execute(command)
    if code != 0:
        raise _ended(code, output, served, where=f"{cell.id} {stack}: warming up")
    return round(time.monotonic() - started, 1)


def compared(loads: tuple[LoadResult, ...], cell: Cell) -> PerformanceResult:
    """Ratios of the released stack to the reference at each level; the lowest one makes the label."""
    profile = cell.load
    speed = {(load.stack, load.concurrency): load.output_tokens_per_s for load in loads}
    ratios = tuple(
        PerformanceRatio(
            concurrency=level,
            ratio=_cut(speed[cell.chip.released, level] / speed[cell.chip.reference, level]),
        )
        for level in profile.concurrency
    )
    lowest = min(ratio.ratio for ratio in ratios)
    return PerformanceResult(
        loads=loads,
        ratios=ratios,
        lowest_ratio=lowest,
        label_floor=profile.ratio_floor,
        label="on par" if lowest >= profile.ratio_floor else "slower",
        input_tokens=profile.input_tokens,
        output_tokens=profile.output_tokens,
    )


def _cut(ratio: float) -> float:
    """Three places, never rounded up: 0.7999 is not 0.8."""
    return math.floor(ratio * 1000) / 1000


def bench_command(cell: Cell, concurrency: int) -> list[str]:
    profile: LoadProfile = cell.load
    return [
        *BENCH,
        "--backend", "openai-chat",
        "--endpoint", "/v1/chat/completions",
        "--base-url", f"http://127.0.0.1:{cell.model.port}",
        "--model", cell.served_name,
        "--tokenizer", cell.weights_path,
        "--dataset-name", "random",
        "--random-input-len", str(profile.input_tokens),
        "--random-output-len", str(profile.output_tokens),
        "--num-prompts", str(concurrency * profile.requests_per_slot),
        "--max-concurrency", str(concurrency),
        "--ignore-eos",
        "--seed", "0",
        "--disable-tqdm",
        "--save-result",
        "--result-dir", RESULTS,
        "--result-filename", f"bench.{concurrency}.json",
    ]  # fmt: skip


def _load(cell: Cell, stack: str, concurrency: int, served: Served) -> LoadResult:
    command = bench_command(cell, concurrency)
    code, output = served.container.execute(command)
    found, text = served.container.execute(["cat", f"{RESULTS}/bench.{concurrency}.json"])
    if code != 0 or found != 0:
        raise _ended(code, output, served, where=f"{cell.id} {stack}: {' '.join(command)}")
    raw = _raw(text, cell, stack, concurrency)
    requests = concurrency * cell.load.requests_per_slot
    failed = requests - int(raw["completed"])
    if failed:
        raise StageRefusedError(
            f"{failed} of {requests} requests failed under load",
            where=f"{cell.id} {stack} at concurrency {concurrency}",
            details=served.log_tail(),
        )
    if not raw["output_throughput"] > 0:
        raise StageRefusedError(
            "the load run counted no output tokens",
            where=f"{cell.id} {stack} at concurrency {concurrency}",
            details=served.log_tail(),
        )
    return LoadResult(
        stack=stack,
        concurrency=concurrency,
        requests=requests,
        failed=failed,
        output_tokens_per_s=round(raw["output_throughput"], 2),
        total_tokens_per_s=round(raw["total_token_throughput"], 2),
        mean_ttft_ms=round(raw["mean_ttft_ms"], 1),
        mean_tpot_ms=round(raw["mean_tpot_ms"], 2),
        raw=raw,
    )


def _ended(code: int, output: str, served: Served, *, where: str) -> StageRefusedError:
    lines = (line for line in output.splitlines() if "nanobind" not in line)
    return StageRefusedError(
        f"the load run ended with exit code {code}",
        where=where,
        details="\n".join(lines)[-2000:],
        hint="the server's last lines: " + served.log_tail(3),
    )


def _raw(text: str, cell: Cell, stack: str, concurrency: int) -> dict[str, Any]:
    """The result file, with null for what JSON cannot hold (a percentile over nothing)."""
    raw: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
    missing = [name for name in READ if not isinstance(raw.get(name), int | float)]
    if missing:
        raise StageRefusedError(
            f"the load run has no figure for {', '.join(missing)}",
            where=f"{cell.id} {stack} at concurrency {concurrency}",
            hint="the version of vLLM in the image writes another result file",
        )
    return raw
