"""The words of the matrix on cards: one card for each chip and each model, with the measurements of a test's record."""

from __future__ import annotations

import pytest

from pipeline.cell import Cell
from pipeline.stages.card import card
from tests.matrix_cards import PROJECT, chosen, record_of


@pytest.mark.parametrize("cell", chosen(), ids=lambda cell: cell.id)
def test_the_words_of_chip_and_model_make_a_card_that_breaks_no_rule(cell: Cell) -> None:
    files = card(record_of(cell), PROJECT.templates)
    english, chinese = (files[name].decode() for name in ("card.en.md", "card.zh.md"))
    for problem in cell.known_problems:
        assert problem.en in english
        assert problem.zh in chinese
    assert cell.model.license.link in english
    assert ("see.py" in english) is (cell.model.modality != "text")
    for hub in (cell.model.weights.modelscope, cell.model.weights.huggingface):
        assert hub is None or f"repository `{hub}`" in english
