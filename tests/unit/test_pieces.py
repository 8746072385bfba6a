"""A tar archive in pieces: joined again it is whole, and equal content gives equal pieces."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path

import pytest

from pipeline.canonical import sha256_file
from pipeline.errors import UsageError
from pipeline.world.pieces import Member, Piece, packed_bytes, parse_size, write_pieces

PIECE = 16_384


def members(code: bytes = b"code") -> list[Member]:
    return [
        Member(path="wheels/large.whl", content=bytes(range(256)) * 200),
        Member(path="code/start", content=code, executable=True),
    ]


def written(folder: Path, found: list[Member] | None = None) -> tuple[Piece, ...]:
    return write_pieces(
        folder, found or members(), piece_bytes=PIECE, settings={"NODE": "shed", "PATHS": "a b"}
    )


def joined(folder: Path) -> tarfile.TarFile:
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("piece.*/data")))
    return tarfile.open(fileobj=io.BytesIO(data))


def test_pieces_joined_in_order_are_the_archive(tmp_path: Path) -> None:
    pieces = written(tmp_path)
    assert [piece.folder.name for piece in pieces] == [f"piece.0{n}" for n in range(4)]
    assert all(piece.size_bytes <= PIECE for piece in pieces)
    with joined(tmp_path) as archive:
        assert archive.getnames() == ["wheels/large.whl", "code/start"]
        file = archive.extractfile("wheels/large.whl")
        assert file is not None
        assert file.read() == members()[0].content
        assert [member.mode for member in archive.getmembers()] == [0o644, 0o755]


def test_every_piece_lists_the_checksums_of_all_and_carries_the_settings(tmp_path: Path) -> None:
    pieces = written(tmp_path)
    sums = "".join(f"{sha256_file(p.folder / 'data')}  {p.folder.name}/data\n" for p in pieces)
    for piece in pieces:
        assert (piece.folder / "pieces.sha256").read_text() == sums
        assert (piece.folder / "bundle.env").read_text() == "NODE=shed\nPATHS='a b'\n"


def test_only_the_pieces_that_hold_a_change_change(tmp_path: Path) -> None:
    assert all(piece.changed for piece in written(tmp_path))
    assert not any(piece.changed for piece in written(tmp_path))
    pieces = written(tmp_path, members(code=b"edit"))
    assert [piece.changed for piece in pieces] == [False, False, False, True]


def test_pieces_that_are_no_longer_needed_are_removed(tmp_path: Path) -> None:
    written(tmp_path)
    pieces = written(tmp_path, members()[1:])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["piece.00"]
    assert pieces[0].changed


@pytest.mark.parametrize(("text", "size"), [("60MiB", 62_914_560), ("1GiB", 1 << 30)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["60MB", "60", "0MiB", "MiB", "-1MiB", "1.5GiB"])
def test_other_words_are_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="expected a size like 60MiB"):
        parse_size(text)


def test_so_many_first_pieces_hold_the_first_members_whole(tmp_path: Path) -> None:
    engine = [
        Member(path="engine/docker.io_20.10.24_amd64.deb", content=b"d" * 3000),
        Member(path="engine/runc_1.1.5_amd64.deb", content=b"r" * 512),
        Member(path="engine/tini_0.19.0_amd64.deb", content=b""),
    ]
    rest = Member(path="wheels/vllm.whl", content=b"v" * 9000)
    pieces = write_pieces(tmp_path, [*engine, rest], piece_bytes=1000, settings={})
    needed = -(-packed_bytes(engine) // 1000)
    data = b"".join((piece.folder / "data").read_bytes() for piece in pieces[:needed])
    found = {}
    with (
        contextlib.suppress(tarfile.ReadError),
        tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive,
    ):
        for member in archive:
            file = archive.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    assert {name: found.get(name) for name in (one.path for one in engine)} == {
        one.path: one.content for one in engine
    }
    assert needed == 6
