"""A release with nothing to do, known again without planning it anew.

A run in which every stage of every cell was reused keeps what it depended on: the state of every file that it read, and
which public tag names which digest. Where none of that has changed, the next run asks the registry for those tags and
is done. Anything else, a tag that moved included, and the release is planned as always.

This module is loaded before the matrix and all that reads it: only what a run with nothing to do needs is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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

PACKAGE = Path(__file__).parent
LIBRARIES = Path(rich.__file__).parents[1]
ASKERS = 4  # threads, each with a connection of its own


@dataclass(frozen=True, kw_only=True)
class PublicTag:
    """What a cell's release is, for everybody: a tag and the digest that it names."""

    cell: str
    host: str
    repository: str
    tag: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """A release that had nothing to do, and what that rested on."""

    release: str
    stages: int
    files: tuple[str, ...]  # beside those of the project: weights, cards on a hub, a public key
    programs: tuple[str, ...]  # that tell the cards of a machine
    tags: tuple[PublicTag, ...]
    index: PublicTag  # of the release
    state: str  # of all of it, hashed


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
    try:
        content = json.loads(_place(options).read_bytes())
        tags = tuple(PublicTag(**tag) for tag in content.pop("tags"))
        index = PublicTag(**content.pop("index"))
        done = Done(**content, tags=tags, index=index)
        is_same = done.state == state(options, done.files, done.programs)
        return done if is_same and _are_public((index, *tags)) else None
    except (OSError, ValueError, TypeError, KeyError, PipelineError):
        return None  # nothing known, or not by this version; a registry that is down is told by the release


def tell(done: Done, report: Reporter) -> None:
    why = f"all {done.stages} stages reused, nothing changed"
    report.say(f"\nrelease {done.release}")
    report.table(("cell", "image", "why"), [(tag.cell, tag.digest, why) for tag in done.tags])


def before(options: Options) -> str:
    """The state before anything is read, for `remember`; empty where nothing will be remembered."""
    try:
        return state(options, (), ()) if may_be_known(options) else ""
    except PipelineError:
        return ""


def remember(options: Options, begun: str, runs: Sequence[CellRelease]) -> None:
    """After all stages of these were reused; not if anything was changed meanwhile, or lies where no state tells."""
    from pipeline.canonical import write_whole

    files = [path for run in runs for path in _files_of(run)]
    index = _index_tag(runs[0])
    if not begun or None in files or index is None or before(options) != begun:
        return
    known_files = tuple(dict.fromkeys(filter(None, files)))
    programs = tuple(
        dict.fromkeys(run.cell.chip.smi.command.split()[0] for run in runs if run.cell.chip.smi)
    )
    done = Done(
        release=runs[0].release,
        stages=len(STAGES),
        files=known_files,
        programs=programs,
        tags=tuple(map(_public_tag, runs)),
        index=index,
        state=state(options, known_files, programs),
    )
    write_whole(_place(options), json.dumps(asdict(done)).encode())


def _public_tag(run: CellRelease) -> PublicTag:
    promoted, names = run.record.stages.promote, run.names
    if promoted is None or promoted.result is None:
        raise LookupError(f"{run.cell.id} was reused as a whole, and has no public image")
    done = promoted.result
    return PublicTag(
        cell=run.cell.id,
        host=names.host,
        repository=names.public,
        tag=done.tag,
        digest=done.digest,
    )


def _index_tag(run: CellRelease) -> PublicTag | None:
    """As it is now: cells that were promoted later have extended it. Releases before 2026.11.25 have none."""
    from pipeline.release_index import index_tag

    shelf, tag = run.shelf, index_tag(run.release)
    digest = shelf.registry.head(shelf.index_repository, tag)
    if digest is None:
        return None
    return PublicTag(
        cell="",
        host=shelf.registry.host,
        repository=shelf.index_repository,
        tag=tag,
        digest=digest,
    )


def _files_of(run: CellRelease) -> Iterator[str | None]:
    """None: something that no file here tells, such as the files of a hub in the network."""
    from pipeline.stages.weights import MANIFEST, weights_folder
    from pipeline.world.hub_folder import FolderHub

    key = run.record.about.release_key
    yield from [key.path] if key else []
    folder = weights_folder(run.project.share, run.cell)
    yield from (str(folder / path) for path in (MANIFEST, *(f.path for f in run.weights.files)))
    stage = run.record.stages.publish
    published = stage.result.publications if stage and stage.result else ()
    for hub in run.world.hubs():
        if not isinstance(hub, FolderHub):
            yield None
        else:
            place = hub.root / run.record.about.hub_name
            yield from (str(place / file.path) for one in published for file in one.files)


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


def _are_public(tags: Sequence[PublicTag]) -> bool:
    """Each names what it named, and nobody has withdrawn that. A HEAD and a list of referrers for each."""
    from pipeline.workers import per_thread
    from pipeline.world.oci import TOMBSTONE_TYPE
    from pipeline.world.registry import Registry
    from pipeline.world.registry_artifacts import referrers

    registry = per_thread(Registry)

    def is_there(tag: PublicTag) -> bool:
        asked = registry(tag.host)
        if asked.head(tag.repository, tag.tag) != tag.digest:
            return False
        return not referrers(asked, tag.repository, tag.digest, TOMBSTONE_TYPE)

    with ThreadPoolExecutor(ASKERS) as pool:
        return all(pool.map(is_there, tags))


def _place(options: Options) -> Path:
    words = json.dumps(asdict(options), default=str, sort_keys=True)
    return Path("out/noop") / f"{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
