"""collect: what a node brought back (by `node/start pack`), verified, merged into out/ and records/."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.canonical import sha256_bytes, write_whole
from pipeline.errors import StageRefusedError, UsageError
from pipeline.record import STAGES, Record, RecordStore, StageRecord, parse_record

PACKED = "records.tgz.*"  # cut into parts, in the order of their names
SUMS = "records.sha256"


@dataclass(frozen=True, kw_only=True)
class Collected:
    record: Record
    folder: Path
    files: int
    new_stages: tuple[str, ...]


def collect(folder: Path, *, root: Path, cells: Collection[str]) -> tuple[Collected, ...]:
    """Merge every record of the folder. Raises StageRefusedError before anything is written when one is not sound."""
    files = _verified(_unpacked(folder), folder)
    searched = {path: content for path, content in files.items() if _is_of_search(path, cells)}
    store = RecordStore(root / "out")
    found = [_record(path, content, cells) for path, content in files.items() if _is_record(path)]
    merged = [_merged(record, store) for record in found]
    done = []
    for incoming, (record, new_stages) in zip(found, merged, strict=True):
        prefix = f"{record.release}/{record.cell}/"
        rest = {path: content for path, content in files.items() if path.startswith(prefix)}
        for path, content in (rest | searched).items():
            if not _is_record(path):
                write_whole(root / "out" / path, content)
        store.write(record)
        RecordStore(root / "records").write(record)
        done.append(
            Collected(
                record=record,
                folder=store.folder(record.release, incoming.chip, incoming.model),
                files=len(rest),
                new_stages=new_stages,
            )
        )
    return tuple(done)


def _unpacked(folder: Path) -> dict[str, bytes]:
    """The files of the archive by path; paths that lead elsewhere are refused."""
    parts = sorted(folder.glob(PACKED))
    if not parts:
        raise UsageError(
            f"nothing called {PACKED} is in this folder",
            where=str(folder),
            hint="give the folder that `node/start pack FOLDER` wrote and that came back",
        )
    whole = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    try:
        with tarfile.open(fileobj=whole, mode="r:gz") as archive:
            return {
                _inside(member.name, folder): file.read()
                for member in archive.getmembers()
                if member.isfile() and (file := archive.extractfile(member))
            }
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StageRefusedError(
            f"the archive is damaged: {error}",
            where=f"{parts[0].name} … {parts[-1].name} in {folder}",
            hint="bring the parts back again",
        ) from error


def _inside(name: str, folder: Path) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise StageRefusedError(
            "a path of the archive leads out of it", where=f"{name} in {folder}"
        )
    return path.as_posix()


def _verified(files: Mapping[str, bytes], folder: Path) -> dict[str, bytes]:
    """The files that the list of checksums names, which must be all of them."""
    lines = files.get(SUMS, b"").decode().splitlines()
    sums = {
        _inside(path, folder): sha256
        for sha256, _, path in (line.partition("  ") for line in lines)
    }
    rest = {path: content for path, content in files.items() if path != SUMS}
    wrong = [path for path, content in rest.items() if sums.get(path) != sha256_bytes(content)]
    wrong += [path for path in sums if path not in rest]
    if wrong or not rest:
        raise StageRefusedError(
            "files are missing, not listed, or not what was packed" if wrong else "it is empty",
            where=str(folder),
            details="\n".join(sorted(wrong)),
            hint="bring the records back again",
        )
    return rest


def _is_of_search(path: str, cells: Collection[str]) -> bool:
    """Probes and findings of bisect, and checks of operators, lie beside the releases."""
    folder, *cell = PurePosixPath(path).with_suffix("").parts[:3]
    return folder in ("bisect", "operators") and "/".join(cell) in cells


def _is_record(path: str) -> bool:
    return PurePosixPath(path).name == "record.json"


def _record(path: str, content: bytes, cells: Collection[str]) -> Record:
    record = parse_record(content, path)
    if path != f"{record.release}/{record.cell}/record.json":
        raise StageRefusedError(f"this is the record of {record.release}/{record.cell}", where=path)
    if record.cell not in cells:
        raise StageRefusedError(
            f"the matrix has no cell {record.cell}", where=path, hint="collect where it has"
        )
    return record


def _merged(incoming: Record, store: RecordStore) -> tuple[Record, tuple[str, ...]]:
    """The record with what both sides know, and the stages that are new here."""
    known = store.read(incoming.release, incoming.chip, incoming.model)
    if known is None:
        names = [name for name in STAGES if incoming.stages.get(name)]
        return incoming, tuple(names)
    new, differing, merged = [], [], known
    for name in STAGES:
        here, there = known.stages.get(name), incoming.stages.get(name)
        if there is None or there == here:
            continue
        if here is None or _goes_on(here, there):
            new.append(name)
            merged = merged.with_stage(name, there)
        else:
            differing.append(name)
    if differing:
        raise StageRefusedError(
            f"here and on the node {', '.join(differing)} ended differently",
            where=f"{incoming.release}/{incoming.cell}",
            hint="both ran under one release name; run again on the node with --release NAME",
        )
    image = incoming.image if "build" in new else known.image
    return merged.model_copy(update={"image": image}), tuple(new)


def _goes_on(here: StageRecord[Any], there: StageRecord[Any]) -> bool:
    """Whether the same node did this stage again after what was brought back before."""
    return here.node == there.node and here.started < there.started
