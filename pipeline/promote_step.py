"""The selected cells to the public registry together: what promote is given, and where its words go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pipeline.admission import Candidate, Release
from pipeline.cell_release import CellRelease
from pipeline.reporter import StageLog
from pipeline.results import PromoteResult
from pipeline.stages.promote import promote


def promote_cells(
    runs: Sequence[CellRelease], left_out: Mapping[str, str], log: StageLog, *, allow_partial: bool
) -> Mapping[str, PromoteResult]:
    """By cell; without those that were left out. `left_out`: cells that stopped before, and where."""
    first = runs[0]
    release = Release(
        name=first.release,
        candidates=[_candidate(run) for run in runs],
        left_out=left_out,
        allow_partial=allow_partial,
    )
    results = promote(release, first.shelf, today=datetime.now(UTC).date(), say=log.say)
    for result in results.values():
        log.say(f"{result.reference} is tagged {result.tag}")
    return results


def _candidate(run: CellRelease) -> Candidate:
    names = run.names
    return Candidate(
        record=run.record,
        source=run.world.registry(names.staging_host),
        source_repository=names.staging_model,
        public=names.public,
        alias=names.alias,
    )
