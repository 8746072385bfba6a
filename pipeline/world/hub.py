"""Where cards go: a hub keeps one folder per model. `FolderHub` is a folder on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pipeline.canonical import sha256_bytes, write_whole
from pipeline.errors import UsageError, WorldError
from pipeline.results import FileHash, Publication

OURS = ("card*", "README*")


class FolderHub:
    """Publishes into `<root>/<name>/`: README.md is in English, README_zh.md in Chinese."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def name(self) -> str:
        return f"folder:{self.root}"

    def publish(self, name: str, files: Mapping[str, bytes]) -> Publication:
        """Make the folder hold exactly these cards, read back; other files in it stay."""
        folder = self._folder(name)
        for file_name in files:
            _check_is_plain(file_name, folder)
        try:
            written = _write_changed(folder, files)
            removed = _remove_stale(folder, files)
            _compare(folder, files)
        except OSError as error:
            raise WorldError(
                "publishing a card: the folder cannot be written or read back",
                where=str(folder),
                details=str(error),
                hint="check its rights and free space, or name another folder in `hubs`",
            ) from error
        return Publication(
            hub=self.name,
            location=str(folder),
            changed=written or removed,
            files=tuple(_hash(path, files[path]) for path in sorted(files)),
        )

    def _folder(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise UsageError(
                f"publishing a card: {name!r} is no name for a folder of the hub",
                where=str(self.root),
                hint="use a relative name such as flagrelease_nvidia_step3",
            )
        return self.root.joinpath(*parts)


def holds(published: Publication) -> bool:
    """Whether a folder still holds the cards that were read back from it."""
    folder = Path(published.location)
    return all(
        (data := _read(folder / file.path)) is not None and sha256_bytes(data) == file.sha256
        for file in published.files
    )


def _check_is_plain(file_name: str, folder: Path) -> None:
    if file_name in ("", ".", "..") or "/" in file_name or "\\" in file_name:
        raise UsageError(
            f"publishing a card: {file_name!r} is no plain file name",
            where=str(folder),
            hint="cards lie directly in the folder of their model",
        )


def _write_changed(folder: Path, files: Mapping[str, bytes]) -> bool:
    stale = {name for name, data in files.items() if _read(folder / name) != data}
    for name in sorted(stale):
        write_whole(folder / name, files[name])
    return bool(stale)


def _remove_stale(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Remove cards of earlier releases that are no longer written, and nothing else."""
    found = {path for pattern in OURS for path in folder.glob(pattern)}
    stale = [path for path in found if path.is_file() and path.name not in files]
    for path in stale:
        path.unlink()
    return bool(stale)


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _compare(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        seen = _read(folder / name)
        if seen == data:
            continue
        came = "nothing" if seen is None else f"sha256 {sha256_bytes(seen)}"
        raise WorldError(
            f"reading a published card back: expected sha256 {sha256_bytes(data)}, got {came}",
            where=str(folder / name),
            hint="something else writes this folder or its disk loses data; publish again",
        )


def _hash(path: str, data: bytes) -> FileHash:
    return FileHash(path=path, sha256=sha256_bytes(data), size_bytes=len(data))
