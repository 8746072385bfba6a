"""Runs the logit pre-gate on a cell whose image and weights are there, and prints every number.

One stack is served, then the steps are done in order; the reference goes first and keeps its trace:

    python -m benchmarks.pregate --record out/<release>/cpu/smollm2/record.json --stack float32 collect:release
    python -m benchmarks.pregate --record … judge:release

A/A is the reference judged in another batch; variants are another variable in the container, or a server argument
taken out of the stack's task file:

    python -m benchmarks.pregate --record … --stack float32 judge:quick:4 judge:quick:16
    python -m benchmarks.pregate --record … --set OMP_NUM_THREADS=1 judge:release
    python -m benchmarks.pregate --record … --without worker_cls judge:release

A stored trace is judged again without serving, with others as what is legitimate:

    python -m benchmarks.pregate --record … --legitimate out/pregate/<engine>.npz stored:release:out/pregate/<trace>.npz

Verdicts are appended to <folder>/verdicts.jsonl.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.accuracy_result import LogitComparison, LogitVerdict
from pipeline.canonical import canonical
from pipeline.cell import Cell
from pipeline.gate.logits import judge_logits
from pipeline.logit_policy import PROFILES, LogitLimits
from pipeline.project import Project
from pipeline.record import read_record
from pipeline.results import BuildResult
from pipeline.serve import launch
from pipeline.suite import pregate_prompts
from pipeline.trace_file import read_reference, read_trace, write_reference, write_trace
from pipeline.traces import ReferenceTrace, Trace
from pipeline.world.endpoint import Endpoint
from pipeline.world.engine import Engine
from pipeline.world.server import serving
from pipeline.world.teacher import collect_candidate, collect_reference

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--share", type=Path, default=ROOT / "out" / "share")
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "pregate")
    parser.add_argument(
        "--node", help="the node without network that this runs on (node/start python)"
    )
    parser.add_argument("--published", action="store_true", help="there, with the published image")
    parser.add_argument("--stack")
    parser.add_argument("--set", dest="variables", nargs="*", default=[], metavar="NAME=VALUE")
    parser.add_argument("--without", metavar="ARGUMENT")
    parser.add_argument("--legitimate", type=Path, nargs="*", default=[], metavar="TRACE")
    parser.add_argument(
        "steps", nargs="+", metavar="collect:PROFILE | judge:PROFILE[:BATCH] | stored:PROFILE:TRACE"
    )
    options = parser.parse_args()
    task = _task(options)
    steps = [[*step.split(":"), "", ""][:3] for step in options.steps]
    for _, profile, path in (step for step in steps if step[0] == "stored"):
        report(task, profile, Path(path).stem, task.trace(Path(path)))
    if all(action == "stored" for action, _, _ in steps):
        return
    with task.served() as endpoint:
        for action, profile, batch in steps:
            if action == "collect":
                collect(task, endpoint, profile)
            elif action == "judge":
                judge(task, endpoint, profile, int(batch) if batch else None)


@dataclass(frozen=True, kw_only=True)
class Task:
    cell: Cell
    stack: str
    image: str
    share: Path
    folder: Path
    prompts: list[str]
    variables: dict[str, str]
    without: str | None
    legitimate: list[Path]

    def reference(self, profile: str) -> ReferenceTrace:
        path = self.folder / f"{profile}.reference.npz"
        found = read_reference(path, key=self.image)
        if found is None:
            raise SystemExit(f"no reference for this image in {path}: collect first")
        return found

    def trace(self, path: Path) -> Trace:
        found = read_trace(path, key=self.image)
        if found is None:
            raise SystemExit(f"no trace of this image in {path}")
        return found

    @property
    def label(self) -> str:
        left_out = [f"without {self.without}"] if self.without else []
        return " ".join([self.stack, *map("=".join, self.variables.items()), *left_out])

    @contextmanager
    def served(self) -> Iterator[Endpoint]:
        started = launch(self.cell, self.stack, self.image, self.share)
        run = started.run.model_copy(
            update={"environment": {**started.run.environment, **self.variables}}
        )
        started = replace(started, run=run, command=self.command)
        with serving(Engine.connect(), started, lambda _: None) as server:
            print(f"{self.label} is ready after {server.ready_seconds:.0f} s", flush=True)
            yield Endpoint(base_url=server.base_url, model=self.cell.served_name)

    @property
    def command(self) -> tuple[str, ...]:
        if not self.without:
            return self.cell.serve_command(self.stack)
        script = (
            f"cp -r {self.cell.conf_folder} /tmp/conf && sed -i /{self.without}/d /tmp/conf/serve/*.yaml && "
            f"flagscale serve {self.cell.model_id} /tmp/conf/{self.cell.experiment_file(self.stack)}"
        )
        return ("sh", "-c", script)


def collect(task: Task, endpoint: Endpoint, profile: str) -> None:
    reference = collect_reference(
        endpoint,
        next(one for one in PROFILES.values() if one.name == profile),
        task.prompts,
        stack=task.stack,
        top_k=LogitLimits().top_k,
        progress=lambda *_: None,
    )
    path = task.folder / f"{profile}.reference.npz"
    write_reference(path, reference, key=task.image)
    print(f"\n{path}: {path.stat().st_size} bytes")
    print(
        {name: round(seconds, 1) for name, seconds in reference.trace.seconds.items()}, flush=True
    )


def judge(task: Task, endpoint: Endpoint, profile: str, batch: int | None) -> None:
    reference = task.reference(profile)
    trace = collect_candidate(
        endpoint, reference, task.prompts, stack=task.label, progress=lambda *_: None, batch=batch
    )
    label = f"{task.label} {profile} batch {batch or reference.profile.batch}"
    write_trace(task.folder / f"{label.replace(' ', '-')}.npz", trace, key=task.image)
    report(task, profile, label, trace)


def report(task: Task, profile: str, label: str, trace: Trace) -> None:
    started = time.monotonic()
    reference = task.reference(profile)
    legitimate = [task.trace(path) for path in task.legitimate]
    verdict = judge_logits(reference, trace, LogitLimits(), legitimate)
    seconds = time.monotonic() - started
    with (task.folder / "verdicts.jsonl").open("ab") as file:
        file.write(canonical({"label": label, **verdict.model_dump(mode="json")}) + b"\n")
    print(f"\n{label}: read and judged in {seconds:.2f} s\n{table(verdict)}", flush=True)


def table(verdict: LogitVerdict) -> str:
    floor = verdict.floor
    rows = [
        *(_row(f"A/A {row.name.split()[0]}", row) for row in floor.itself),
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
            f"floor {floor.mean:.1e} / {floor.p99:.1e} / {floor.margin:.2f} nat",
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


def _task(options: argparse.Namespace) -> Task:
    record = read_record(options.record)
    build = record.stages.build
    if build is None or not isinstance(build.result, BuildResult):
        raise SystemExit(f"{options.record}: no image was built")
    model = build.result.model
    project = Project(ROOT, ROOT / "matrix.yaml", options.node, published=options.published)
    cell = next(cell for cell in project.cells if cell.id == record.cell)
    host = record.about.repository.partition("/")[0]
    return Task(
        cell=cell,
        stack=options.stack or cell.chip.released,
        image=model.reference(host),
        share=options.share,
        folder=options.folder,
        prompts=list(pregate_prompts(cell, project.lock, options.share / "download", print)),
        variables=dict(pair.split("=", 1) for pair in options.variables),
        without=options.without,
        legitimate=options.legitimate,
    )


if __name__ == "__main__":
    main()
