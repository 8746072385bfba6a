"""A release with nothing to do, known again without planning it anew.

A run in which every stage of every cell was reused keeps what it depended on: the state of every file that it read, and
what is public. Where none of that has changed, the next run asks registry and hubs whether it is still public and is
done. Anything else, a tag that moved included, and the release is planned as always.

This module is loaded before the matrix and all that reads it: only what a run with nothing to do needs is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import rich

from pipeline.errors import PipelineError
from pipeline.options import Options
from pipeline.stage_names import STAGES
from pipeline.world import git

if TYPE_CHECKING:
    from pipeline.cell_release import CellRelease
    from pipeline.reporter import Reporter
    from pipeline.results import Publication
    from pipeline.world.standing import Beside, HubCard, PublicTag, Standing

PACKAGE = Path(__file__).parent
LIBRARIES = Path(rich.__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A release that had nothing to do, and what that rested on."""

    release: str
    stages: int
    files: tuple[str, ...]  # beside those of the project: weights, cards on a hub, a public key
    programs: tuple[str, ...]  # that tell the cards of a machine
    state: str  # of all that is here, hashed
    public: Standing


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What was so before a run looked at anything, so that a change while it ran is not taken for seen."""

    state: str
    beside: Beside


def may_be_known(options: Options) -> bool:
    """Whether this is the plain command that releases cells as a whole."""
    return options == Options(
        command="release",
        cells=options.cells,
        matrix=options.matrix,
        target=options.target,
        release=options.release,
        allow_partial=options.allow_partial,
        fail_fast=options.fail_fast,
        jobs=options.jobs,
        yes=options.yes,
    )


def known(options: Options) -> Done | None:
    """The finished release of these words, if nothing that it depends on has changed since."""
    from pipeline.world.standing import Standing

    try:
        content = json.loads(_place(options).read_bytes())
        done = Done(**{**content, "public": Standing.of(content["public"])})
        is_same = done.state == state(options, done.files, done.programs)
        return done if is_same and done.public.is_still_so() else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, PipelineError):
        return None  # nothing known, or not by this version; a registry that is down is told by the release


def tell(done: Done, report: Reporter) -> None:
    why = f"all {done.stages} stages reused, nothing changed"
    report.say(f"\nrelease {done.release}")
    cells = [tag for tag in done.public.tags if tag.cell]
    report.table(("cell", "image", "why"), [(tag.cell, tag.digest, why) for tag in cells])


def before(options: Options) -> str:
    """The state before anything is read, for `remember`; empty where nothing will be remembered."""
    try:
        return state(options, (), ()) if may_be_known(options) else ""
    except PipelineError:
        return ""


def begin(state: str, runs: Sequence[CellRelease]) -> Begun | None:
    """With what the registry says before it is asked for anything else; None where nothing will be remembered."""
    from pipeline.world.standing import Beside

    if not state:
        return None
    shelf = runs[0].shelf
    try:
        beside = Beside.read(shelf.registry, shelf.index_repository)
        under_way = shelf.is_withdrawing(beside.withdrawn)  # the rest of it would not be seen
        return None if under_way else Begun(state=state, beside=beside)
    except PipelineError:
        return None


def remember(options: Options, begun: Begun | None, runs: Sequence[CellRelease]) -> None:
    """After all stages of these were reused; not if anything was changed meanwhile, or no index names the release."""
    from pipeline.canonical import write_whole

    public = _standing(begun, runs) if begun else None
    if begun is None or public is None or before(options) != begun.state:
        return
    files = tuple(dict.fromkeys(path for run in runs for path in _files_of(run)))
    programs = tuple(
        dict.fromkeys(run.cell.chip.smi.command.split()[0] for run in runs if run.cell.chip.smi)
    )
    done = Done(
        release=runs[0].release,
        stages=len(STAGES),
        files=files,
        programs=programs,
        state=state(options, files, programs),
        public=public,
    )
    write_whole(_place(options), json.dumps(asdict(done)).encode())


def _standing(begun: Begun, runs: Sequence[CellRelease]) -> Standing | None:
    """None for a release without an index: those before 2026.11.25 have none."""
    from pipeline.release_index import index_tag
    from pipeline.world.standing import PublicTag, Standing

    shelf, tag = runs[0].shelf, index_tag(runs[0].release)
    # As it is now: cells that were promoted later have extended it.
    digest = shelf.registry.head(shelf.index_repository, tag)
    if digest is None:
        return None
    index = PublicTag(cell="", repository=shelf.index_repository, tag=tag, digest=digest)
    return Standing(
        host=shelf.registry.host,
        index_repository=shelf.index_repository,
        beside=begun.beside,
        tags=(index, *map(_public_tag, runs)),
        cards=tuple(card for run in runs for card in _cards(run)),
    )


def _public_tag(run: CellRelease) -> PublicTag:
    from pipeline.world.standing import PublicTag

    promoted = run.record.stages.promote
    if promoted is None or promoted.result is None:
        raise LookupError(f"{run.cell.id} was reused as a whole, and has no public image")
    done = promoted.result
    return PublicTag(
        cell=run.cell.id, repository=run.names.public, tag=done.tag, digest=done.digest
    )


def _cards(run: CellRelease) -> Iterator[HubCard]:
    """On hubs in the network."""
    from pipeline.world.hub_account import AccountHub

    hubs = {hub.name: hub for hub in run.world.hubs()}
    for published in _publications(run):
        hub = hubs[published.hub]
        if isinstance(hub, AccountHub):
            yield hub.card(run.record.about.hub_name, published, run.heads.get(published.hub, ""))


def _publications(run: CellRelease) -> Sequence[Publication]:
    stage = run.record.stages.publish
    return stage.result.publications if stage and stage.result else ()


def _files_of(run: CellRelease) -> Iterator[str]:
    from pipeline.stages.weights import MANIFEST, weights_folder
    from pipeline.world.hub_folder import FolderHub

    key = run.record.about.release_key
    yield from [key.path] if key else []
    folder = weights_folder(run.project.share, run.cell)
    yield from (str(folder / path) for path in (MANIFEST, *(f.path for f in run.weights.files)))
    for hub in run.world.hubs():
        if isinstance(hub, FolderHub):
            place = hub.root / run.record.about.hub_name
            yield from (str(place / file.path) for one in _publications(run) for file in one.files)


def state(options: Options, files: Iterable[str], programs: Iterable[str]) -> str:
    """A hash of what a release depends on: files by size, times and inode, as git's index has them; machine and git.

    Raises WorldError where no engine answers, for its version is a part of keys.
    """
    from pipeline.world.engine import Engine
    from pipeline.world.node import processor

    machine = [sys.version, os.cpu_count(), processor(), _boot(), Engine.connect().builder]
    told = [*machine, git.tags_of_head(), [(name, shutil.which(name)) for name in programs]]
    hashed = hashlib.sha256(
        json.dumps([sorted(vars(options).items(), key=str), told], default=str).encode()
    )
    for path in _read_by_every_release(options):
        hashed.update(_stat(path))
    for file in files:
        hashed.update(_stat(file))
    return hashed.hexdigest()


def _read_by_every_release(options: Options) -> Iterator[str]:
    yield from map(str, (options.matrix, "matrix.lock", LIBRARIES))
    for folder in (PACKAGE, "templates", "images"):
        yield from _below(str(folder))
    yield from sorted(map(str, Path("out").glob("*/*/*/record.json")))


def _below(folder: str) -> Iterator[str]:
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from (f"{path}/{name}" for name in sorted(names))


def _stat(path: str) -> bytes:
    try:
        found = os.stat(path)  # noqa: PTH116 -- a thousand files in a few milliseconds
    except FileNotFoundError:
        return f"{path}: absent\n".encode()
    seen = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
    return f"{path}: {seen}\n".encode()


def _boot() -> str:
    """Cards are taken for the same until the machine starts again."""
    return Path("/proc/sys/kernel/random/boot_id").read_text()


def _place(options: Options) -> Path:
    words = json.dumps(asdict(options), default=str, sort_keys=True)
    return Path("out/noop") / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
