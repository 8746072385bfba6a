"""doctor: everything that a release needs, looked at one by one; says what is wrong and what to do about it.

A check never ends another one: on a machine where half is absent, the other half is still looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pipeline.cell import Cell
from pipeline.checkup import Check, Finding, ok, unknown, wrong
from pipeline.chip import Chip, Smi
from pipeline.errors import UsageError, WorldError
from pipeline.hub_accounts import Hub
from pipeline.matrix import Target
from pipeline.record import ReleaseKey
from pipeline.registry_checkup import registry_checks
from pipeline.signatures import PublicKey
from pipeline.world import git
from pipeline.world.device_memory import LEAST_SHARE, CardShare, holders, too_full
from pipeline.world.engine import Engine
from pipeline.world.engine_errors import START_HINT
from pipeline.world.harbor import registry_of
from pipeline.world.hubs import hubs_of
from pipeline.world.node import cards, processor
from pipeline.world.signing_key import KEY, signing_key

GIB = 1 << 30
SLOW_DRIVERS = ("vfs", "devicemapper")


def checks(
    root: Path,
    cells: Sequence[Cell],
    target: Target,
    engine: Callable[[], Engine],
    release_key: Callable[[], ReleaseKey | None],
    *,
    are_named: bool,
    is_public: bool,
    mends: bool,
) -> Iterator[Check]:
    """In the order in which a release needs them; each is to be made before the next is taken."""
    yield from machine_checks(cells, engine, are_named=are_named)
    yield from registry_checks(
        target,
        partial(registry_of, target),
        lambda: datetime.now(UTC),
        is_public=is_public,
        mends=mends,
    )
    if is_public or target.public_key:
        yield Check("signing key", partial(signs, release_key))
    yield from hub_checks(target.hubs, root)


def machine_checks(
    cells: Sequence[Cell], engine: Callable[[], Engine], *, are_named: bool
) -> Iterator[Check]:
    """`are_named`: the cells were asked for, and are not just all."""
    chips = {cell.chip_id: cell.chip for cell in cells}
    yield Check("git", _git)
    yield Check("engine", partial(_engine, engine))
    yield Check("disk of images", partial(_disk, engine, chips, are_named=are_named))
    for name, chip in chips.items():
        yield Check(f"devices of {name}", partial(_devices, chip, is_named=are_named))


def hub_checks(hubs: Sequence[Hub], root: Path) -> Iterator[Check]:
    for hub in hubs:
        yield Check(f"hub {_title(hub)}", partial(_hub, hub, root))


def _git() -> Finding:
    revision, changed = git.revision(), git.changed_files()
    if revision == "unknown":
        return unknown("no commit to be read here", "work in a clone, or set FLAGRELEASE_REVISION")
    if changed:
        named = ", ".join([*changed[:3], *(["…"] if len(changed) > 3 else [])])
        return wrong(
            f"{len(changed)} tracked files differ from {revision[:12]}: {named}",
            "commit them: labels and records name the commit, and it must hold what was built",
        )
    return ok(f"clean at {revision[:12]}")


def _engine(engine: Callable[[], Engine]) -> Finding:
    found = engine()
    driver = found.storage().driver
    seen = f"Docker {found.version} answers, storage driver {driver}"
    if driver in SLOW_DRIVERS:
        return wrong(f"{seen}, which copies whole layers", "set `storage-driver` to overlay2")
    return ok(seen)


def _disk(engine: Callable[[], Engine], chips: dict[str, Chip], *, are_named: bool) -> Finding:
    try:
        found = engine()
    except WorldError:
        return unknown("the engine says where images are, and does not answer", START_HINT)
    root, free_bytes = found.storage().root, found.free_bytes()
    if free_bytes is None:
        return unknown(f"{root} is on another machine", f"df {root} on the machine of the engine")
    free = free_bytes / GIB
    short = [name for name, chip in chips.items() if chip.build_disk_gib > free]
    needs = ", ".join(f"{name} {chips[name].build_disk_gib:.0f}" for name in short)
    if not short:
        return ok(f"{free:.0f} GiB free in {root}")
    seen = f"{free:.1f} GiB free in {root}; a build of these needs more: {needs}"
    to_do = "docker system df shows what is large, docker image prune frees some"
    is_wrong = are_named or len(short) == len(chips)
    return wrong(seen, to_do) if is_wrong else unknown(seen, to_do)


def _devices(chip: Chip, *, is_named: bool) -> Finding:
    if chip.smi is None:
        return ok(f"no card needed; {processor()} x{os.cpu_count()}")
    tool = chip.smi.command.split()[0]
    if shutil.which(tool) is None and not is_named:
        return unknown(f"no {tool} here", "no fault, unless cells of this chip are served here")
    found = cards(chip, chip.smi)
    if found and (short := too_full(_everything(chip.smi, len(found)))):
        is_said = wrong if is_named else unknown
        return is_said(f"{', '.join(found)}; {'; '.join(short)}", holders(chip.smi))
    if found:
        return ok(", ".join(found))
    return wrong(f"{tool} runs and names no card", f"look at what {chip.smi.command} prints")


def _everything(smi: Smi, cards: int) -> CardShare:
    """What a cell takes that says nothing of its share."""
    return CardShare(smi=smi, cards=tuple(range(cards)), share=LEAST_SHARE)


def signs(release_key: Callable[[], ReleaseKey | None]) -> Finding:
    """Asked here, for a release asks only after hours of measurements."""
    public = release_key()
    if public is None:
        return wrong(
            "the target names no public key, and what is public is signed",
            "make a pair, and name its public half in the target (docs/attestations.md)",
        )
    PublicKey.read(public.pem, public.path)
    if not os.environ.get(KEY):
        return unknown(
            f"{KEY} is not set", "no fault where nothing is signed; else docs/attestations.md"
        )
    signing_key(public)
    return ok(f"the private half of {public.path}")


def _hub(hub: Hub, root: Path) -> Finding:
    """Whether there is a token; it is not shown, and not tried, for no hub has a trial that leaves no trace."""
    try:
        hubs_of([hub], root)
    except UsageError as error:
        return wrong("no token", error.hint)
    return ok("needs none" if hub.folder is not None else "its token is set, not tried")


def _title(hub: Hub) -> str:
    account = hub.modelscope or hub.huggingface
    return hub.text if account is None else f"{hub.kinds[0]}:{account.organisation}"
