"""Promotes six staged toy images, as a program of its own: what a test kills, and runs twice at once.

    python -m tests.promoter SOURCE TARGET PREFIX JOURNALS RELEASE [--only-recover]

Prints what it says; its exit code is that of the pipeline.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

from pipeline.admission import Candidate, Release
from pipeline.errors import NoAnswerError, NotAllowedError, PipelineError, WorldError
from pipeline.stages.promote import promote
from pipeline.world.registry import Registry
from pipeline.world.shelf import Shelf
from tests.fakes_registry import gated_record

Say = Callable[[str], None]
CELLS = tuple(f"cpu/toy{number}" for number in range(6))


def staging_of(prefix: str, cell: str) -> str:
    return f"{prefix}/staging/{cell}"


def public_of(prefix: str, cell: str) -> str:
    return f"{prefix}/flagrelease_{cell.replace('/', '_')}"


def say(text: str) -> None:
    print(text, flush=True)


def run(words: list[str], say: Say, docker_config: Path | None = None) -> None:
    source_host, target_host, prefix, journals, release, *options = words
    source = Registry(source_host, docker_config=docker_config)
    target = Registry(target_host, docker_config=docker_config)
    try:
        shelf = Shelf(
            registry=target, index_repository=f"{prefix}/releases", journals=Path(journals)
        )
        if "--only-recover" in options:
            with shelf.alone(say):
                return
        found = [candidate(source, prefix, cell, release) for cell in CELLS]
        asked = Release(name=release, candidates=found, left_out={})
        promote(asked, shelf, today=date(2026, 11, 24), say=say)
    finally:
        source.close()
        target.close()


def candidate(source: Registry, prefix: str, cell: str, release: str) -> Candidate:
    staging = staging_of(prefix, cell)
    digest = str(source.head(staging, f"b-{release}"))
    return Candidate(
        record=gated_record(digest, cell),
        source=source,
        source_repository=staging,
        public=public_of(prefix, cell),
    )


KINDS = (NotAllowedError, NoAnswerError, WorldError, PipelineError)

if __name__ == "__main__":
    try:
        run(sys.argv[1:], say)
    except PipelineError as error:
        kind = next(kind for kind in KINDS if isinstance(error, kind))
        say(f"{kind.__name__}: {error}")
        sys.exit(error.exit_code)
