"""Wheels for another machine: downloaded for its Python by a lock with hashes, and trimmed of what is never loaded."""

from __future__ import annotations

import base64
import csv
import fnmatch
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.canonical import sha256_file
from pipeline.errors import WorldError
from pipeline.world.command import run

OLDEST_GLIBC = 5  # of manylinux1
CHANGED = zipfile.ZipInfo().date_time  # one fixed time for what we write ourselves
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Platform:
    """Whose wheels: CPython of a version on glibc of a version."""

    python: str
    glibc: str
    machine: str  # x86_64, aarch64

    @property
    def tags(self) -> tuple[str, ...]:
        """pip matches a platform tag exactly, so every older one is named too."""
        newest = int(self.glibc.partition(".")[2])
        numbered = [f"manylinux_2_{minor}" for minor in range(newest, OLDEST_GLIBC - 1, -1)]
        names = [*numbered, "manylinux2014", "manylinux2010", "manylinux1"]
        return tuple(f"{name}_{self.machine}" for name in names)


def locked_versions(lock: bytes) -> dict[str, str]:
    """Distribution name, in its normal form, → version."""
    return {_normal(name): version for name, version in _REQUIREMENT.findall(lock.decode())}


def download_wheels(
    lock: bytes, platform: Platform, folder: Path, *, from_source: Sequence[str] = ()
) -> tuple[Path, ...]:
    """Every wheel of a lock with hashes. What is in the folder already is not downloaded again.

    `from_source` names pure Python packages that have no wheel: theirs is built here. Raises WorldError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources, rest = _split(lock.decode(), {_normal(name) for name in from_source})
    (folder / "requirements.lock").write_text(rest)
    options = ["--quiet", "--no-deps", "--require-hashes"]
    if not _is_there(rest, folder):
        tags = [word for tag in platform.tags for word in ("--platform", tag)]
        run(
            [sys.executable, "-m", "pip", "download", *options, "--only-binary", ":all:", *tags,
             "--python-version", platform.python, "--implementation", "cp",
             "--dest", folder, "--requirement", folder / "requirements.lock"],
            doing=f"downloading wheels for Python {platform.python}",
            hint="see that the package index answers; run nox -s lock when a version is gone",
        )  # fmt: skip
    if sources and len(_wheels(folder, locked_versions(sources.encode()))) < sources.count("=="):
        (folder / "sources.lock").write_text(sources)
        run(
            [sys.executable, "-m", "pip", "wheel", *options,
             "--wheel-dir", folder, "--requirement", folder / "sources.lock"],
            doing=f"building wheels of {', '.join(from_source)}",
            hint="see that the package index answers",
        )  # fmt: skip
    return _whole(folder, locked_versions(lock))


def _is_there(lock: str, folder: Path) -> bool:
    """Whether every wheel of the lock is in the folder, with a hash that the lock names."""
    wanted = locked_versions(lock.encode())
    found = _wheels(folder, wanted)
    return len(found) == len(wanted) and all(sha256_file(wheel) in lock for wheel in found)


def _whole(folder: Path, wanted: dict[str, str]) -> tuple[Path, ...]:
    found = _wheels(folder, wanted)
    missing = sorted(set(wanted) - {_name_of(wheel) for wheel in found})
    if missing:
        raise WorldError(
            f"{len(missing)} wheels of the lock are missing: {', '.join(missing)}",
            where=str(folder),
            hint="run again; a package without a wheel belongs into source_packages",
        )
    return found


def _wheels(folder: Path, wanted: dict[str, str]) -> tuple[Path, ...]:
    """Exactly those wheels of the folder that the lock names: an earlier lock may have left others."""
    return tuple(
        wheel
        for wheel in sorted(folder.glob("*.whl"))
        if wanted.get(_name_of(wheel)) == wheel.name.split("-")[1]
    )


def trimmed(wheel: Path, patterns: Sequence[str], folder: Path) -> Path:
    """The wheel without the files that the patterns name, or the wheel itself where they name none.

    A pattern is a path under site-packages; `*` stays within one name, and a folder stands for what is in it.
    """
    with zipfile.ZipFile(wheel) as archive:
        dropped = {name for name in archive.namelist() if is_named(name, patterns)}
    if not dropped:
        return wheel
    target = folder / wheel.name
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(partial, "w") as smaller:
        _copy(archive, smaller, dropped)
    return partial.replace(target)


def is_named(path: str, patterns: Sequence[str]) -> bool:
    parts = PurePosixPath(path).parts
    return any(_starts_with(parts, PurePosixPath(pattern).parts) for pattern in patterns)


def _starts_with(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(parts) >= len(pattern) and all(
        fnmatch.fnmatchcase(part, glob) for part, glob in zip(parts, pattern, strict=False)
    )


def _copy(archive: zipfile.ZipFile, smaller: zipfile.ZipFile, dropped: set[str]) -> None:
    """Every kept file, and a RECORD that lists exactly those."""
    record = next(n for n in archive.namelist() if n.endswith(".dist-info/RECORD"))
    for member in archive.infolist():
        if member.filename in dropped or member.filename == record:
            continue
        data = archive.read(member)
        smaller.writestr(member, data, compress_type=zipfile.ZIP_DEFLATED, compresslevel=6)
    rows = csv.reader(io.StringIO(archive.read(record).decode()))
    kept = io.StringIO()
    csv.writer(kept, lineterminator="\n").writerows(r for r in rows if r and r[0] not in dropped)
    smaller.writestr(zipfile.ZipInfo(record, CHANGED), kept.getvalue(), zipfile.ZIP_DEFLATED)


def record_faults(wheel: Path) -> tuple[str, ...]:
    """Where the RECORD of a wheel and its files disagree; empty for a sound wheel."""
    with zipfile.ZipFile(wheel) as archive:
        record = next(n for n in archive.namelist() if n.endswith(".dist-info/RECORD"))
        rows = {r[0]: r for r in csv.reader(io.StringIO(archive.read(record).decode())) if r}
        files = {name for name in archive.namelist() if not name.endswith("/")}
        return tuple(_faults(archive, rows, files, record))


def _faults(
    archive: zipfile.ZipFile, rows: dict[str, list[str]], files: set[str], record: str
) -> Iterator[str]:
    for name in sorted(files - rows.keys()):
        yield f"{name}: not in RECORD"
    for name in sorted(rows.keys() - files):
        yield f"{name}: in RECORD, not in the wheel"
    for name in sorted(rows.keys() & files - {record}):
        data = archive.read(name)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if rows[name][1:] != [f"sha256={digest}", str(len(data))]:
            yield f"{name}: another content than RECORD says"


def _split(lock: str, apart: set[str]) -> tuple[str, str]:
    """The entries of some packages, and all others."""
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    mine = [e for e in entries if _normal(e.partition("==")[0]) in apart]
    return "".join(mine), "".join(e for e in entries if e not in mine)


def _name_of(wheel: Path) -> str:
    return _normal(wheel.name.partition("-")[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
