"""The base from Debian's archive, as on a machine that never built one. Elsewhere the registry has it already."""

from __future__ import annotations

import tarfile
from pathlib import Path

from pipeline.project import Project
from pipeline.world.debian import bootstrap
from pipeline.world.scratch import scratch_folder
from tests.integration.conftest import CELL, ROOT
from tests.projects import one_cell


def test_the_base_is_made_where_a_build_makes_it(tmp_path: Path) -> None:
    chip = one_cell(Project(ROOT, ROOT / "matrix.yaml"), *CELL).chip
    with scratch_folder() as folder:
        archive = folder / "base.tar"
        bootstrap(
            chip.base, chip.arch, archive, log=tmp_path / "bootstrap.log", on_line=lambda _: None
        )
        with tarfile.open(archive) as found:
            names = {name.removeprefix("./") for name in found.getnames()}
    assert "usr/bin/python3" in names
    assert not any(name.startswith("var/lib/apt/lists/") and "Packages" in name for name in names)
