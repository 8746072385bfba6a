"""Names under which the world sees a cell: repositories, tags, model repositories, labels, the long alias."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.cells import exclusions
from pipeline.matrix import CellExclusion, Matrix, Target
from pipeline.names import Names, labels, names, shared_hub_names
from tests.projects import committed, one_cell, toy_project

PROJECT = committed()
PUBLIC = PROJECT.matrix.targets["flagos"]
# https://github.com/opencontainers/distribution-spec/blob/main/spec.md, pulling manifests
REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")


def of(chip: str, model: str) -> Names:
    return names(one_cell(PROJECT, chip, model), PUBLIC)


def test_a_target_with_one_prefix_stages_under_it(tmp_path: Path) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    assert names(cell, Target(registry="127.0.0.1:5000/flagrelease")) == Names(
        host="127.0.0.1:5000",
        staging_host="127.0.0.1:5000",
        public="flagrelease/flagrelease_abacus_poet",
        staging_base="flagrelease/staging/abacus/base",
        staging_runtime="flagrelease/staging/abacus/runtime",
        staging_model="flagrelease/staging/abacus/poet",
        hub="Poet-1B-abacus-FlagOS",
        alias=None,
    )


def test_a_target_may_stage_in_another_registry(tmp_path: Path) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    target = Target(registry="harbor.baai.ac.cn/flagrelease-public", staging="stage.test/a/b")
    found = names(cell, target)
    assert (found.host, found.public) == (
        "harbor.baai.ac.cn",
        "flagrelease-public/flagrelease_abacus_poet",
    )
    assert (found.staging_host, found.staging_base) == ("stage.test", "a/b/abacus/base")
    assert (found.staging_runtime, found.staging_model) == (
        "a/b/abacus/runtime",
        "a/b/abacus/poet",
    )


def test_the_public_repository_of_step3_is_the_one_that_its_card_names() -> None:
    step3 = of("nvidia", "step3")
    reference = f"{step3.host}/{step3.public}"
    assert reference == "harbor.baai.ac.cn/flagrelease-public/flagrelease_nvidia_step3"


PUBLISHED = {
    (chip, model_id): name
    for model_id, model in PROJECT.matrix.models.items()
    for chip, name in model.published.items()
}


def test_model_repositories_are_called_as_flagrelease_calls_them_now() -> None:
    """Of its names on the hubs, those by the rule of 2026: `<Model>[-<vendor>]-FlagOS`, without a vendor for NVIDIA."""
    now = {cell: name for cell, name in PUBLISHED.items() if name.endswith("-FlagOS")}
    assert len(now) >= 15
    cells = [cell for cell in now if "/".join(cell) not in exclusions(PROJECT.matrix)]
    assert len(cells) >= 12
    others = {cell: now[cell] for cell in cells if of(*cell).hub != now[cell]}
    assert others == {("nvidia", "minicpm-o-4.5"): "MiniCPM-o-4.5-nvidia-FlagOS"}


def test_older_names_of_flagrelease_have_the_same_words_with_the_vendor_last() -> None:
    older = {cell: name for cell, name in PUBLISHED.items() if not name.endswith("-FlagOS")}
    assert len(older) >= 8
    for (chip, model), name in older.items():
        short = PROJECT.matrix.models[model].hub_name or PROJECT.matrix.models[model].title
        assert name.lower() == f"{short}-flagos-{chip}".lower()
        assert of(chip, model).hub == "-".join(
            [short, *([chip] if chip != "nvidia" else []), "FlagOS"]
        )


def test_the_long_alias_tells_what_is_in_the_image() -> None:
    assert of("ascend", "qwen3-8b").alias == (
        "flagrelease-public/flagrelease-ascend-release-model_qwen3-8b-tree_0.6.0.ascend3.5-gems_5.3.3-scale_0.8.0"
        "-cx_none-python_3.11-torch_npu-2.10.0.cpu-pcp_cann9.0.0-gpu_ascend001-arc_arm64-driver_26.0.rc1"
    )


def test_an_image_without_flagtree_says_so_in_its_alias() -> None:
    assert "-tree_none-" in str(of("nvidia", "step3").alias)
    assert "-tree_none-" in str(of("mthreads", "qwen3-8b").alias), "its released stack has Triton"


@pytest.mark.parametrize("chip", ["cpu", "enflame", "sunrise", "tsingmicro"])
def test_a_fact_that_is_not_known_gives_no_alias_instead_of_an_x(chip: str) -> None:
    """FlagRelease has no code for these accelerators."""
    assert of(chip, "qwen3-4b").alias is None


def test_every_name_is_one_that_registries_take_and_no_two_cells_share_one() -> None:
    every = [names(cell, PUBLIC) for cell in PROJECT.cells]
    for found in every:
        for name in (found.public, found.staging_model, *([found.alias] if found.alias else [])):
            assert REPOSITORY.fullmatch(name), name
            assert len(name) <= 255
    assert len({found.public for found in every}) == len(every)
    assert len({found.hub for found in every}) == len(every)


def clashes(matrix: Matrix) -> list[str]:
    return [message for _, message, _ in shared_hub_names(matrix)]


def with_the_title_of(matrix: Matrix, other: str, model: str) -> Matrix:
    named = {"title": matrix.models[other].title, "hub_name": matrix.models[other].hub_name}
    models = {**matrix.models, model: matrix.models[model].model_copy(update=named)}
    return matrix.model_copy(update={"models": models})


def test_a_cell_that_the_matrix_excludes_leaves_its_hub_name_to_another(tmp_path: Path) -> None:
    both = with_the_title_of(toy_project(tmp_path).matrix, "poet", "critic")
    assert [message.split(" on hubs")[0] for message in clashes(both)] == [
        "abacus/critic would have the name of abacus/poet"
    ]
    cells = both.cells.model_copy(
        update={"exclude": [*both.cells.exclude, CellExclusion(cell="abacus/poet", why="replaced")]}
    )
    assert clashes(both.model_copy(update={"cells": cells})) == []


def test_a_cell_that_no_node_can_serve_keeps_its_hub_name() -> None:
    matrix = PROJECT.matrix
    said = {entry.cell for entry in matrix.cells.exclude}
    cell = next(one for one in exclusions(matrix) if one not in said)
    chip, _, model = cell.partition("/")
    other = next(one.model_id for one in PROJECT.cells if one.chip_id == chip)
    named = [line for line in clashes(with_the_title_of(matrix, other, model)) if cell in line]
    assert named


def test_every_layer_has_its_own_labels(tmp_path: Path) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    runtime = labels(cell, "runtime", "k1", revision="abc", created="2026-11-24T00:00:00Z")
    model = labels(cell, "model", "k2", revision="abc", created="2026-11-24T00:00:00Z")
    assert runtime == {
        "org.opencontainers.image.title": "FlagOS serving runtime for Abacus",
        "org.opencontainers.image.vendor": "Example",
        "org.opencontainers.image.version": "0.32.0",
        "org.opencontainers.image.revision": "abc",
        "org.opencontainers.image.source": "https://example.test/releases",
        "org.opencontainers.image.created": "2026-11-24T00:00:00Z",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "io.flagos.release.key": "k1",
        "io.flagos.release.cell": "abacus",
    }
    changed = {name.rpartition(".")[2] for name in model if model[name] != runtime[name]}
    assert changed == {"title", "key", "cell"}
