"""A tar archive in pieces that fit through a narrow door: each small enough, each with the checksums of all of them.

`<folder>/piece.NN/` holds `data` and, the same in every piece, `pieces.sha256` and `bundle.env`. The archive is the
`data` files joined in order; it has fixed times and owners, so that equal content gives equal pieces.
"""

from __future__ import annotations

import hashlib
import io
import shlex
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.canonical import sha256_file, write_whole
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

SUMS = "pieces.sha256"
SETTINGS = "bundle.env"
UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file of the archive."""

    path: str
    content: bytes | Path
    executable: bool = False

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True, kw_only=True)
class Piece:
    folder: Path
    sha256: str
    size_bytes: int
    changed: bool  # against what an earlier run left here


def parse_size(text: str) -> int:
    """`60MiB` in bytes. Raises UsageError."""
    number, unit = text[:-3], text[-3:]
    if unit in UNITS and number.isdigit() and int(number) > 0:
        return int(number) * UNITS[unit]
    raise UsageError(f"expected a size like 60MiB, got {text}", where="--pieces")


def write_pieces(
    folder: Path, members: Iterable[Member], *, piece_bytes: int, settings: Mapping[str, str]
) -> tuple[Piece, ...]:
    """Write the archive. Members keep their order: where what changes often stands last, the other pieces stay."""
    folder.mkdir(parents=True, exist_ok=True)
    old = {data.parent.name: sha256_file(data) for data in folder.glob("piece.*/data")}
    cutter = _Cutter(folder, piece_bytes)
    try:
        with tarfile.open(fileobj=cutter, mode="w|", format=tarfile.GNU_FORMAT) as archive:
            for member in members:
                _add(archive, member)
    except BaseException:
        cutter.abandon()
        raise
    cutter.finish()
    for gone in set(old) - {piece.name for piece in cutter.finished}:
        shutil.rmtree(folder / gone)
    pieces = tuple(
        Piece(
            folder=piece,
            sha256=sha256,
            size_bytes=(piece / "data").stat().st_size,
            changed=old.get(piece.name) != sha256,
        )
        for piece, sha256 in cutter.finished.items()
    )
    sums = "".join(f"{piece.sha256}  {piece.folder.name}/data\n" for piece in pieces)
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(settings.items()))
    for piece in pieces:
        write_whole(piece.folder / SUMS, sums.encode())
        write_whole(piece.folder / SETTINGS, lines.encode())
    return pieces


def packed_bytes(members: Iterable[Member]) -> int:
    """What members with short names take at the head of an archive: a block for each, and their content in blocks."""
    return sum(
        tarfile.BLOCKSIZE * (1 + -(-member.size_bytes // tarfile.BLOCKSIZE)) for member in members
    )


def _add(archive: tarfile.TarFile, member: Member) -> None:
    entry = tarfile.TarInfo(member.path)
    entry.size, entry.mode = member.size_bytes, 0o755 if member.executable else 0o644
    if isinstance(member.content, bytes):
        archive.addfile(entry, io.BytesIO(member.content))
    else:
        with member.content.open("rb") as file:
            archive.addfile(entry, file)


class _Cutter(io.RawIOBase):
    """A file to write to, which goes on in the next piece when one is full."""

    def __init__(self, folder: Path, piece_bytes: int) -> None:
        super().__init__()
        self.finished: dict[Path, str] = {}  # folder of the piece → SHA-256
        self._folder = folder
        self._piece_bytes = piece_bytes
        self._piece: _OpenPiece | None = None

    def write(self, data: Buffer) -> int:
        whole = rest = memoryview(data)
        while rest:
            piece = self._piece or _OpenPiece(self._folder / f"piece.{len(self.finished):02}")
            self._piece = piece
            room = self._piece_bytes - piece.size_bytes
            piece.write(rest[:room])
            rest = rest[room:]
            if piece.size_bytes == self._piece_bytes:
                self._end_piece()
        return len(whole)

    # Not by `close`, which Python calls too when writing has failed: half a piece would look like a whole one.
    def finish(self) -> None:
        self._end_piece()

    def abandon(self) -> None:
        if self._piece is not None:
            self._piece.abandon()

    def _end_piece(self) -> None:
        if self._piece is not None:
            self.finished[self._piece.folder] = self._piece.close()
            self._piece = None


class _OpenPiece:
    """Its data appears under its name only when it is whole."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.size_bytes = 0
        self._sum = hashlib.sha256()
        self._file = (folder / ".data.partial").open("wb")

    def write(self, data: memoryview) -> None:
        self._file.write(data)
        self._sum.update(data)
        self.size_bytes += len(data)

    def close(self) -> str:
        self._file.close()
        (self.folder / ".data.partial").replace(self.folder / "data")
        return self._sum.hexdigest()

    def abandon(self) -> None:
        with suppress(OSError):  # what is left to be written finds no room either
            self._file.close()
        (self.folder / ".data.partial").unlink()
