"""The project folder as the stages see it: matrix, lock, templates, rendered files, and where outputs go."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pipeline.about import about
from pipeline.canonical import sha256_bytes, sha256_file
from pipeline.cell import Cell
from pipeline.cells import cells
from pipeline.chip import Chip
from pipeline.errors import StageRefusedError, UsageError
from pipeline.lock import Lock, lock_files, read_lock
from pipeline.matrix import Matrix, Target
from pipeline.matrix_file import read_matrix
from pipeline.matrix_names import nearest
from pipeline.names import names
from pipeline.nodes import lock_on_node, on_node
from pipeline.parts import Inputs
from pipeline.record import Record, RecordStore, ReleaseKey
from pipeline.stage_sources import SOURCES
from pipeline.stages.render import render_chip, render_model
from pipeline.templates import Templates
from pipeline.waiver import Waiver

PACKAGE = Path(__file__).parent


class Project:
    def __init__(
        self, root: Path, matrix_path: Path, node: str | None = None, *, published: bool = False
    ) -> None:
        self.root = root
        self.matrix_path = matrix_path
        self.node = node  # the node without network that we are on, or look at
        self.published = published  # whether it runs the published image, carried whole
        self.store = RecordStore(root / "out")
        self.records = RecordStore(root / "records")  # committed: of real releases, and imported
        self.templates = Templates(root / "templates")
        self._by_chip: dict[int, tuple[Chip, dict[str, bytes]]] = {}

    @cached_property
    def matrix(self) -> Matrix:
        found = read_matrix(self.matrix_path)
        return on_node(found, self.node, published=self.published) if self.node else found

    @cached_property
    def lock(self) -> Lock:
        found = read_lock(self.root)
        return lock_on_node(found, self.matrix, self.builds_on) if self.builds_on else found

    @property
    def cells(self) -> tuple[Cell, ...]:
        return cells(self.matrix)

    @cached_property
    def waivers(self) -> Mapping[str, Waiver]:
        """By cell."""
        return {waiver.cell: waiver for waiver in self.matrix.cells.waivers}

    @property
    def share(self) -> Path:
        """What containers see as /share: weights and what they were made from."""
        return self.root / "out" / "share"

    def bisect_folder(self, cell: Cell) -> Path:
        """Probes, evidence and findings of a search for operators at fault."""
        return self.root / "out" / "bisect" / cell.chip_id / cell.model_id

    def rehearsal_folder(self, cell: Cell) -> Path:
        """What the machine of a card's reader has as /share; empty before and after a rehearsal."""
        return self.root / "out" / "rehearsal" / cell.chip_id / cell.model_id

    def operators_file(self, cell: Cell) -> Path:
        """What the newest operator check of a cell said."""
        return self.root / "out" / "operators" / cell.chip_id / f"{cell.model_id}.json"

    def flageval_file(self, cell: Cell) -> Path:
        """The ids of what was sent to the FlagEval service."""
        return self.root / "out" / "flageval" / cell.chip_id / f"{cell.model_id}.json"

    @property
    def journals(self) -> Path:
        """Of what was about to be done to public tags."""
        return self.root / "out" / "promotions"

    @property
    def environments(self) -> Path:
        """Of harnesses that do not fit into ours."""
        return self.root / "out" / "environments"

    @property
    def builds_on(self) -> str | None:
        """The node whose own system goes under the images."""
        return None if self.published else self.node

    @property
    def traces(self) -> Path:
        """What stacks answered to the pre-gate, by cell."""
        return self.root / "out" / "traces"

    @property
    def carried(self) -> Path:
        """What was carried to the node that we are on, unpacked there by node/start."""
        return self.root / "out" / "node"

    def target(self, name: str) -> Target:
        if name not in self.matrix.targets:
            raise UsageError(f"no target is called {name}", hint=nearest(name, self.matrix.targets))
        return self.matrix.targets[name]

    def release_key(self, target: Target) -> ReleaseKey | None:
        """The public key that the target names. Raises UsageError unless it is a PEM file."""
        if target.public_key is None:
            return None
        try:
            pem = (self.root / target.public_key).read_text("ascii")
            der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]), validate=True)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the public key of a target cannot be read: {error}",
                where=target.public_key,
                hint="docs/attestations.md says how to make one",
            ) from error
        return ReleaseKey(path=target.public_key, pem=pem, fingerprint=sha256_bytes(der))

    def files(self, cell: Cell) -> dict[str, bytes]:
        """What a cell's images are built from: fresh renders, the requirement lock, our own files."""
        return {**self._chip_files(cell), **render_model(cell, self.templates), **self._serving}

    def _chip_files(self, cell: Cell) -> dict[str, bytes]:
        """What all cells of a chip share; the chip is kept, so that no other gets its id."""
        if id(cell.chip) not in self._by_chip:
            files = {**render_chip(cell, self.templates), **self._locks(cell)}
            self._by_chip[id(cell.chip)] = (cell.chip, files)
        return self._by_chip[id(cell.chip)][1]

    def _locks(self, cell: Cell) -> dict[str, bytes]:
        """Requirement locks; on a node the one of what was carried to it goes for the chip's."""
        paths = lock_files(cell.chip_id, cell.chip)
        there = {paths[cell.chip_id]: f"node/{self.builds_on}.image.lock"} if self.builds_on else {}
        found = {path: self.root / there.get(path, path) for path in paths.values()}
        return {path: lock.read_bytes() for path, lock in found.items() if lock.exists()}

    def inputs(self, cell: Cell, target: Target, *, builder: str | None, node: str) -> Inputs:
        files = self.files(cell)
        return Inputs(
            lock=self.lock,
            files=files,
            edited=self._edited(files),
            templates=self.template_hashes,
            sources=self.source_hashes,
            builder=builder,
            node=node,
            registry=target.registry,
            about=about(
                cell,
                names(cell, target),
                self.release_key(target),
                self.waivers.get(cell.id),
                next((name for name, one in self.matrix.targets.items() if one == target), None),
            ),
            hubs=tuple(hub.text for hub in target.hubs),
            blocks=self._blocks_sha256,
        )

    def past(self, selected: Sequence[Cell]) -> dict[str, tuple[Record, ...]]:
        return {cell.id: self.store.of_cell(cell.chip_id, cell.model_id) for cell in selected}

    def _edited(self, files: Mapping[str, bytes]) -> tuple[str, ...]:
        """Rendered files whose committed content is another one."""
        return tuple(
            path
            for path, content in files.items()
            if not path.endswith(".lock")  # a node reads its own, elsewhere
            and path not in self._serving  # read from there
            and _content(f"{self.root}/{path}") != content
        )

    def _blocks_sha256(self, record: Record) -> str | None:
        if record.image is None:
            return None  # as the card would say, and a plan without records needs no cards
        from pipeline.cards.blocks import blocks_sha256
        from pipeline.stages.card import guide_blocks

        try:
            return blocks_sha256(guide_blocks(record, self.templates))
        except StageRefusedError:
            return None

    @cached_property
    def _serving(self) -> dict[str, bytes]:
        folder = self.root / "images" / "serving"
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {
            path.relative_to(self.root).as_posix(): path.read_bytes()
            for path in found
            if "__pycache__" not in path.parts
        }

    @cached_property
    def template_hashes(self) -> dict[str, str]:
        folder = self.root / "templates"
        return {
            path.relative_to(self.root).as_posix(): sha256_file(path)
            for path in sorted(folder.rglob("*.j2"))
        }

    @cached_property
    def source_hashes(self) -> dict[str, str]:
        paths = {path for listed in SOURCES.values() for path in listed}
        return {
            f"pipeline/{path}": sha256_bytes((PACKAGE / path).read_bytes())
            for path in sorted(paths)
        }


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 -- a thousand files a plan
            return file.read()
    except FileNotFoundError:
        return None
