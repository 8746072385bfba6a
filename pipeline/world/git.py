"""What git says of the project's own commit; nothing outside a repository."""

from __future__ import annotations

import os

from pipeline.errors import PipelineError
from pipeline.world.command import run


def tags_of_head() -> tuple[str, ...]:
    return tuple(_git("tag", "--points-at", "HEAD").split())


def revision() -> str:
    """The commit. On a node, where no git is, node/start says from which one the bundle was made."""
    return os.environ.get("FLAGRELEASE_REVISION") or _git("rev-parse", "HEAD").strip() or "unknown"


def changed_files() -> tuple[str, ...]:
    """Tracked files that differ from the commit."""
    return tuple(line[3:] for line in _git("status", "--porcelain", "-uno").splitlines())


def _git(*words: str) -> str:
    try:
        return run(["git", *words], doing="asking git", hint="").output
    except PipelineError:
        return ""
