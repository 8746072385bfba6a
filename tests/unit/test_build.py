"""What the build stage decides before and after the engine works: where a parent lies, and whether there is room."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from pipeline.cell import Cell
from pipeline.errors import WorldError
from pipeline.names import Layer, names
from pipeline.reporter import StageLog
from pipeline.results import BuiltImage
from pipeline.stages.build import _image, _refuse_short_disk
from pipeline.staging import Builder, place_of
from pipeline.world.engine import Engine
from pipeline.world.engine_host import is_elsewhere
from pipeline.world.push import Place
from tests.fakes import FakeEngine
from tests.fakes_registry import FakeRegistry
from tests.projects import one_cell, toy_project

DIGEST = f"sha256:{'1' * 64}"


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return one_cell(toy_project(tmp_path), "loom", "poet")


def builder(folder: Path, cell: Cell, free_gib: float | None = 1000) -> Builder:
    return Builder(
        engine=cast(Engine, FakeEngine(free_gib=free_gib)),
        registry=FakeRegistry(),
        names=names(cell, toy_project(folder).target("local")),
        revision="test",
        created="2026-11-24T00:00:00Z",
        log=cast(StageLog, None),
    )


@pytest.mark.parametrize(
    ("repository", "place"),
    [
        ("toys/staging/loom/runtime", "toys/staging/loom/runtime"),
        ("registry.test/vendor/base", "vendor/base"),
        ("mirror.test/vendor/base", None),
    ],
)
def test_a_parent_is_mounted_from_where_it_lies_in_the_same_registry(
    tmp_path: Path, cell: Cell, repository: str, place: str | None
) -> None:
    image = BuiltImage(
        layer="base",
        repository=repository,
        key="k",
        config_digest=DIGEST,
        manifest_digest=DIGEST,
        size_bytes=1,
        stored_bytes=0,
        built=False,
        seconds=0,
    )
    found = place_of(image, builder(tmp_path, cell))
    assert found == (Place(repository=place, reference=DIGEST) if place else None)


def test_a_disk_of_another_machine_is_not_judged(tmp_path: Path, cell: Cell) -> None:
    _refuse_short_disk(cell, builder(tmp_path, cell, free_gib=None))
    with pytest.raises(WorldError, match="GiB are free where the engine keeps images"):
        _refuse_short_disk(cell, builder(tmp_path, cell, free_gib=0.5))


class Said:
    """The log of a stage, in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    progress = say


def test_a_thin_last_layer_takes_the_room_that_its_parent_has_left(
    tmp_path: Path, cell: Cell
) -> None:
    registry, log = FakeRegistry(), Said(tmp_path / "build.log")
    engine = FakeEngine(registry=registry, free_gib=0.5)
    full = replace(
        builder(tmp_path, cell), engine=engine, registry=registry, log=cast(StageLog, log)
    )
    parent = BuiltImage(
        layer="runtime",
        repository=full.names.staging_runtime,
        key="k",
        config_digest=DIGEST,
        manifest_digest=DIGEST,
        size_bytes=1,
        stored_bytes=0,
        built=True,
        seconds=0,
    )

    def image(layer: Layer) -> BuiltImage:
        repository = f"toys/staging/{layer}"
        return _image(layer, repository, cell, full, parts={}, parent=parent, context=dict)

    with pytest.raises(WorldError, match=r"0\.5 GiB are free"):
        image("runtime")
    assert image("model").built


@pytest.mark.parametrize(
    ("host", "elsewhere"),
    [
        ("", False),
        ("unix:///run/user/1000/docker.sock", False),
        ("ssh://node", True),
        ("tcp://node:2376", True),
    ],
)
def test_an_engine_is_elsewhere_unless_its_address_is_a_socket(
    monkeypatch: pytest.MonkeyPatch, host: str, elsewhere: bool
) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    assert is_elsewhere() is elsewhere
