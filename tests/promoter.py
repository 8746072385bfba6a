"""Promotes six staged toy images, as a program of its own: what a test kills, and runs twice at once.

    python -m tests.promoter SOURCE TARGET PREFIX JOURNALS RELEASE [--only-recover]

Prints what it says; its exit code is that of the pipeline.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.stages.promote import Candidate, Release, promote
from pipeline.world.registry import Registry
from pipeline.world.shelf import Shelf
from tests.fakes_registry import gated_record

CELLS = tuple(f"cpu/toy{number}" for number in range(6))


def staging_of(prefix: str, cell: str) -> str:
    return f"{prefix}/staging/{cell}"


def public_of(prefix: str, cell: str) -> str:
    return f"{prefix}/flagrelease_{cell.replace('/', '_')}"


def say(text: str) -> None:
    print(text, flush=True)


def run(words: list[str]) -> None:
    source_host, target_host, prefix, journals, release, *options = words
    source, target = Registry(source_host), Registry(target_host)
    shelf = Shelf(registry=target, index_repository=f"{prefix}/releases", journals=Path(journals))
    if "--only-recover" in options:
        with shelf.alone(say):
            return
    candidates = []
    for cell in CELLS:
        staging = staging_of(prefix, cell)
        digest = str(source.head(staging, f"b-{release}"))
        candidates.append(
            Candidate(
                record=gated_record(digest, cell),
                source=source,
                source_repository=staging,
                public=public_of(prefix, cell),
            )
        )
    promote(
        Release(name=release, candidates=candidates, left_out={}),
        shelf,
        today=date(2026, 11, 24),
        say=say,
    )


if __name__ == "__main__":
    try:
        run(sys.argv[1:])
    except PipelineError as error:
        say(f"{type(error).__name__}: {error}")
        sys.exit(error.exit_code)
