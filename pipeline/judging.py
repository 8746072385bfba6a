"""The gate without a release: stored rows judged again, and the judge itself judged. No Docker, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from pipeline.accuracy_result import AccuracyResult, BenchmarkVerdict, Verdict
from pipeline.cell import Cell
from pipeline.errors import InconclusiveError, PipelineError, StageRefusedError, UsageError
from pipeline.policy import Gate
from pipeline.project import Project
from pipeline.record import Record
from pipeline.reporter import Reporter
from pipeline.result_source import ImportedRuns
from pipeline.rows import stored_rows
from pipeline.yaml_source import read_yaml

# Keys of the policy that rows of another asking cannot be judged by; the pre-gate's verdict is stored, not its traces.
ASKING = {"concurrency", "logits", "seed", "temperature", "texts"}


def judge_stored(
    project: Project,
    cells: Sequence[Cell],
    *,
    release: str | None,
    policy: Path | None,
    report: Reporter,
) -> None:
    """Print the verdict of each cell's rows under the matrix's policy, or the matrix's with changes.

    Nothing is written. Raises for the first cell that does not pass, after all are printed.
    """
    errors: list[PipelineError] = []
    for cell in cells:
        record, result = _measured(project, cell, release)
        gate = with_changes(cell.gate, policy) if policy else cell.gate
        verdict = _judged(project, record, _doubted(cell, result), gate)
        _print(cell.id, record.release, verdict, report)
        if verdict.status != "pass":
            kind = InconclusiveError if verdict.status == "inconclusive" else StageRefusedError
            errors.append(kind(verdict.sentence, where=f"gate of {cell.id}"))
    if errors:
        raise errors[0]


def with_changes(gate: Gate, path: Path) -> Gate:
    """The policy with the keys of a YAML file in place of its own; `gate:` may stand around them."""
    source = read_yaml(path)
    data = source.data
    changes = data.get("gate", data) if isinstance(data, dict) else data
    if not isinstance(changes, dict) or source.faults:
        raise UsageError(
            "expected the keys of a gate",
            where=str(path),
            details="\n".join(map(str, source.faults)),
            hint="for example: margin: 0.05",
        )
    if asking := sorted(ASKING & changes.keys()):
        raise UsageError(
            f"{', '.join(asking)} decide what the stacks are asked, which stored rows cannot tell",
            where=str(path),
            hint="change them in matrix.yaml and run nox -s accuracy",
        )
    try:
        return Gate.model_validate({**gate.model_dump(), **changes})
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, found['loc']))}: {found['msg']}, got {found['input']!r}"
            for found in error.errors()
        ]
        raise UsageError(
            "this is no policy",
            where=str(path),
            details="\n".join(faults),
            hint="docs/matrix.schema.json describes the keys of `gate`",
        ) from error


def _measured(project: Project, cell: Cell, release: str | None) -> tuple[Record, AccuracyResult]:
    for record in project.store.of_cell(cell.chip_id, cell.model_id):
        found = record.stages.accuracy.result if record.stages.accuracy else None
        if found and release in (None, record.release):
            if found.chance:
                return record, found
            # The newest word counts: an older pass is not asked for behind a newer refusal.
            raise StageRefusedError(
                f"{record.release} has no rows to judge: {found.verdict.sentence}",
                where=f"gate of {cell.id}",
            )
    raise StageRefusedError(
        f"no rows are stored of {'any release' if release is None else release}",
        where=f"gate of {cell.id}",
        hint=f"run nox -s accuracy -- {cell.chip_id} {cell.model_id}",
    )


def _doubted(cell: Cell, result: AccuracyResult) -> AccuracyResult:
    """Results that were imported before they had sources decide nothing, whatever was said of them then."""
    unsourced = {
        name: ImportedRuns(
            runs=1,
            next_file=f"results/{spec.folder}/<stack>/run-2/{spec.file}",
            doubts=("its rows were stored before result files had a source",),
        )
        for name, one in cell.all_benchmarks.items()
        if (spec := one.evaluator.imported) and name in result.chance
    }
    return result.model_copy(update={"imported": {**unsourced, **result.imported}})


def _judged(project: Project, record: Record, result: AccuracyResult, gate: Gate) -> Verdict:
    from pipeline.gate.verdict import judge_again  # numpy takes a while to import

    folder = project.store.folder(record.release, record.chip, record.model)
    return judge_again(result, stored_rows(folder, result), gate)


def _print(cell: str, release: str, verdict: Verdict, report: Reporter) -> None:
    report.say(f"{cell} {release}, policy {verdict.policy_sha256[:12]}")
    if verdict.benchmarks:
        report.table(COLUMNS, [_line(row) for row in verdict.benchmarks])
    if pooled := verdict.pooled:
        margin = "no margin" if pooled.margin is None else f"margin {100 * pooled.margin:.1f}"
        report.say(
            f"over all {pooled.n} items that decide: {100 * pooled.difference:+z.2f}, "
            f"loss bound {100 * pooled.lower_bound:+z.2f}, {margin}"
        )
    for line in (*verdict.faults, *(f"warning: {text}" for text in verdict.warnings)):
        report.say(line)
    report.say(verdict.sentence)


COLUMNS = (
    "benchmark",
    "items",
    "runs",
    "reference",
    "candidate",
    "difference",
    "interval",
    "margin",
    "lost",
    "gained",
    "p harm",
    "",
)


def _line(row: BenchmarkVerdict) -> tuple[str, ...]:
    word = row.status if row.has_power else f"{row.status}, no power"
    return (
        row.benchmark,
        str(row.n),
        str(row.runs),
        f"{100 * row.reference_score:.2f}",
        f"{100 * row.candidate_score:.2f}",
        f"{100 * row.difference:+z.2f}",
        f"{100 * row.lower_bound:+z.2f} … {100 * row.upper_bound:+z.2f}",
        f"{100 * row.margin:.1f}",
        str(row.lost),
        str(row.gained),
        f"{row.p_harm:.2g}",
        word if row.tier == "critical" else f"advisory, {word}",
    )
