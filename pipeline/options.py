"""What was asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.culprits import Level
    from pipeline.stage_names import StageName


@dataclass(frozen=True, kw_only=True)
class Options:
    command: str
    cells: list[str] = field(default_factory=list)
    matrix: Path = Path("matrix.yaml")
    target: str = "local"
    release: str | None = None
    until: StageName = "publish"
    check: bool = False
    publish: bool = False
    dry_run: bool = False
    json: bool = False
    github: bool = False
    explain: bool = False
    yes: bool = False
    fix: bool = False
    again: bool = False
    allow_partial: bool = False
    fail_fast: bool = False
    jobs: str = ""
    by: str | None = None
    reason: str = ""
    stack: str | None = None
    minutes: float = 60
    parallel: int = 1
    gpus: int = 1
    restart: bool = False
    apply: bool = False
    level: Level = "fail"
    policy: Path | None = None
    draws: int = 3000
    seed: int = 0
    node: str | None = None
    published: bool = False
    pieces: str = "60MiB"
    folder: Path = Path()
    word: str = ""
    ids: list[str] = field(default_factory=list)
    image: str = ""
    key: Path | None = None
    unsigned: bool = False
    card: list[Path] = field(default_factory=list)
    url: str | None = None
    tokenizer: str | None = None
    layout: Literal["flat", "eval_infos"] = "flat"
