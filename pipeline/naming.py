"""The name of a release: the git tag, the release that is still open, or the next free `<date>.<n>`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from pipeline.errors import UsageError
from pipeline.record import Record

CALVER = re.compile(r"^v?\d{4}\.\d{2}\.\d{2}(\.\d+)?([.-][0-9A-Za-z]+)*\Z")


def release_tag(tags: Iterable[str]) -> str | None:
    """The CalVer tag of a commit, if it has one."""
    return max((tag for tag in tags if CALVER.match(tag)), key=release_order, default=None)


def check_name(name: str) -> str:
    if not CALVER.match(name):
        raise UsageError(
            f"{name} is no release name",
            hint="names are dates with a number: 2026.11.24.1",
        )
    return name


def newest_release(past: Mapping[str, Sequence[Record]]) -> str | None:
    """The release in which any of the selected cells was last worked on."""
    newest = [records[0].release for records in past.values() if records]
    return max(newest, key=release_order) if newest else None


def is_open(release: str, past: Mapping[str, Sequence[Record]]) -> bool:
    """Nothing of it was promoted yet, so it may go on under its name."""
    mine = [record for records in past.values() for record in records if record.release == release]
    return not any(record.stages.promote for record in mine)


def next_release(today: date, taken: Iterable[str]) -> str:
    """The first `<date>.<n>` that neither a record nor a tag of the registry has."""
    prefix = f"{today:%Y.%m.%d}."
    used = {int(n) for name in taken if (n := name.removeprefix(prefix)) != name and n.isdigit()}
    return f"{prefix}{max(used, default=0) + 1}"


def release_order(release: str) -> tuple[int, ...]:
    """Sorts releases by their numbers, not by their text."""
    return tuple(int(number) for number in re.findall(r"\d+", release))
