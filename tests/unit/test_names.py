"""Names under which the world sees a cell: repositories, tags, model repositories, labels, the long alias."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.matrix import Target
from pipeline.names import Names, labels, names
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


@pytest.mark.parametrize(
    ("chip", "model", "published"),
    [
        ("nvidia", "step3", "step3-FlagOS"),
        ("nvidia", "qwen3-8b", "Qwen3-8B-FlagOS"),
        ("nvidia", "qwen3-next-80b-a3b", "Qwen3-Next-80B-A3B-Instruct-FlagOS"),
        ("nvidia", "ernie-4.5-300b-a47b-pt", "ERNIE-4.5-300B-A47B-PT-FlagOS"),
        ("nvidia", "glm-4.5", "GLM-4.5-FlagOS"),
        ("nvidia", "kimi-k2-instruct", "Kimi-K2-Instruct-FlagOS"),
        ("nvidia", "minicpm-v-4", "MiniCPM-V-4-FlagOS"),
        ("nvidia", "robobrain2.0-7b", "RoboBrain2.0-7B-FlagOS"),
        ("hygon", "qwen3-4b", "Qwen3-4B-hygon-FlagOS"),
        ("metax", "qwen3-8b", "Qwen3-8B-metax-FlagOS"),
        ("mthreads", "qwen3-8b", "Qwen3-8B-mthreads-FlagOS"),
        ("metax", "minicpm-v-4", "MiniCPM-V-4-metax-FlagOS"),
        ("metax", "robobrain2.0-7b", "RoboBrain2.0-7B-metax-FlagOS"),
        ("ascend", "minicpm-o-4.5", "MiniCPM-o-4.5-ascend-FlagOS"),
        ("thead", "minicpm-o-4.5", "MiniCPM-o-4.5-zhenwu-FlagOS"),
    ],
)
def test_model_repositories_are_called_as_flagrelease_has_published_them(
    chip: str, model: str, published: str
) -> None:
    assert of(chip, model).hub == published


@pytest.mark.parametrize(
    ("chip", "model", "published"),
    [
        ("ascend", "qwen3-4b", "Qwen3-4B-FlagOS-Ascend"),
        ("cambricon", "qwen3-4b", "Qwen3-4B-FlagOS-cambricon"),
        ("nvidia", "qwq-32b", "QwQ-32B-FlagOS-Nvidia"),
        ("nvidia", "qwen3-235b-a22b", "Qwen3-235B-A22B-FlagOS-nvidia"),
        ("nvidia", "minicpm-o-4.5", "MiniCPM-o-4.5-nvidia-FlagOS"),
    ],
)
def test_published_names_that_follow_another_rule_have_the_same_words(
    chip: str, model: str, published: str
) -> None:
    """The rule of 2026 puts the vendor before FlagOS and leaves NVIDIA out; these are older, or did not follow it."""

    def words(name: str) -> set[str]:
        return set(name.lower().split("-")) - {"nvidia"}

    ours = of(chip, model).hub
    assert ours != published
    assert words(ours) == words(published)


def test_the_long_alias_tells_what_is_in_the_image() -> None:
    assert of("ascend", "qwen3-8b").alias == (
        "flagrelease-public/flagrelease-ascend-release-model_qwen3-8b-tree_0.6.0.ascend3.5-gems_5.3.3-scale_0.8.0"
        "-cx_none-python_3.11-torch_npu-2.10.0.cpu-pcp_cann9.0.0-gpu_ascend001-arc_arm64-driver_26.0.rc1"
    )


def test_an_image_without_flagtree_says_so_in_its_alias() -> None:
    assert "-tree_none-" in str(of("nvidia", "step3").alias)
    assert "-tree_none-" in str(of("mthreads", "qwen3-8b").alias), "its released stack has Triton"


@pytest.mark.parametrize("chip", ["cpu", "enflame", "sunrise", "tsingmicro", "thead"])
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
