"""The words of the matrix on cards: one card for each chip and each model, with the measurements of a test's record."""

from __future__ import annotations

from functools import cache

import pytest

from pipeline.cell import Cell
from pipeline.model import Size
from pipeline.record import Record
from pipeline.stages.card import CARDS, card
from tests.matrix_cards import PROJECT, chosen, record_of

LOCAL, STEP3 = "127.0.0.1:5000/flagrelease/toy", "nvidia/step3"


def pages(record: Record) -> tuple[str, str]:
    files = card(record, PROJECT.templates)
    english, chinese = (files[name].decode() for name in CARDS)
    return english, chinese


@cache
def pages_of(cell_id: str) -> tuple[str, str]:
    return pages(record_of(next(cell for cell in PROJECT.cells if cell.id == cell_id)))


def row_of(page: str, start: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(start))


def with_packages(record: Record, packages: dict[str, str]) -> Record:
    """As if the smoke test had read these out of the image, too."""
    stage = record.stages.smoke
    assert stage is not None
    assert stage.result is not None
    assert stage.result.facts is not None
    inside = {**stage.result.facts.packages, **packages}
    facts = stage.result.facts.model_copy(update={"packages": inside})
    result = stage.result.model_copy(update={"facts": facts})
    return record.with_stage("smoke", stage.model_copy(update={"result": result}))


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: cell.id)
def test_the_words_of_chip_and_model_make_a_card_that_breaks_no_rule(cell: Cell) -> None:
    english, chinese = pages_of(cell.id)
    for problem in cell.known_problems:
        assert problem.en in english
        assert problem.zh in chinese
    assert cell.model.license.link in english
    assert ("see.py" in english) is (cell.model.modality != "text")
    for hub in (cell.model.weights.modelscope, cell.model.weights.huggingface):
        assert hub is None or f"repository `{hub}`" in english


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: cell.id)
def test_flagtree_is_claimed_only_where_it_was_read_from_the_image(cell: Cell) -> None:
    english, chinese = pages_of(cell.id)
    assert "| not in this image |" in row_of(english, "| [FlagTree]")
    assert "| 不在本镜像中 |" in row_of(chinese, "| [FlagTree]")
    named = cell.chip.stacks[cell.chip.released].compiler
    if named is None:
        assert "| not in this image |" in row_of(english, "| Compiler of ")
        return
    title = cell.chip.compilers[named].title
    assert f"| {title}, according to the matrix, not read from the image |" in english
    assert f"| {title}（依据矩阵，并非从镜像中读出） |" in chinese


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: cell.id)
def test_a_compiler_that_was_read_is_named_by_its_versions(cell: Cell) -> None:
    named = cell.chip.stacks[cell.chip.released].compiler
    packages = cell.chip.compilers[named].packages if named else {"triton": "3.6.0"}
    english, chinese = pages(with_packages(record_of(cell), packages))
    flagtree = packages.get("flagtree", "not in this image")
    assert f"| {flagtree} |" in row_of(english, "| [FlagTree]")
    for name, version in packages.items():
        assert f"{name} {version}" in row_of(english, "| Compiler of ")
        assert f"{name} {version}" in chinese
    assert "not read from the image" not in english


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: cell.id)
def test_the_card_says_the_data_type_of_its_weights(cell: Cell) -> None:
    size = cell.model.size
    assert isinstance(size, Size)
    english, chinese = pages_of(cell.id)
    glance = row_of(english, "| Weights |")
    assert glance.startswith(f"| Weights | {size.dtype} (as the matrix states it)")
    assert row_of(chinese, "| 权重 |").startswith(f"| 权重 | {size.dtype}（依据矩阵）")
    served = cell.serve_arguments(cell.chip.released).get("dtype")
    assert (f"served as {served}" in glance) is (served is not None and served != size.dtype)
    evaluation = english.partition("## Evaluation results")[2].partition("\n## ")[0]
    assert f"\nWeights: {size.dtype} (as the matrix states it)" in evaluation


def test_a_cell_with_other_weights_than_its_model_says_their_data_type() -> None:
    base = PROJECT.matrix.models["step3"].size
    assert base is not None
    assert base.dtype == "bfloat16"
    assert "| Weights | fp8 " in row_of(pages_of(STEP3)[0], "| Weights |")


@pytest.mark.parametrize("repository", [LOCAL, "registry.test/flagrelease/toy"])
def test_the_command_that_makes_the_page_again_names_target_and_release(repository: str) -> None:
    record = record_of(next(cell for cell in PROJECT.cells if cell.id == STEP3))
    changed = {"repository": repository, "target": "flagos", "is_attested": True}
    record = record.model_copy(update={"about": record.about.model_copy(update=changed)})
    english, chinese = pages(record)
    command = f"`nox -s card -- nvidia step3 --target flagos --release {record.release}`"
    assert command in english
    assert command in chinese
    assert ("on any machine that reaches the registry" in english) is (repository != LOCAL)
    assert ("能访问该镜像仓库的任何机器上" in chinese) is (repository != LOCAL)
