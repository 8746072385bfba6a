"""How many cards a model takes, and what the server and `docker run` are told about it."""

from __future__ import annotations

import pytest

from pipeline.chip import Run, Visible
from pipeline.doubts import doubts
from pipeline.errors import StageRefusedError
from pipeline.placement import cards_for, for_cards
from pipeline.serve import launch
from tests.projects import ROOT, committed, one_cell

PROJECT = committed()


# What makers say of cards of 80 GB (facts/models.yaml, min_80gb).
@pytest.mark.parametrize(
    ("weights_gb", "cards"),
    [
        (642, 16), (326, 8), (8.0, 1), (16.4, 1), (470, 8), (240, 4), (160, 4), (80, 2), (65, 2),
        (685, 16), (1370, 32), (600, 16), (716, 16), (358, 8), (1030, 16), (0.27, 1),
    ],
)  # fmt: skip
def test_cards_of_80_gb_are_as_many_as_makers_say(weights_gb: float, cards: int) -> None:
    assert cards_for(weights_gb, 80) == cards


@pytest.mark.parametrize(
    ("chip", "model", "arguments"),
    [
        ("nvidia", "qwen3-4b", {}),
        ("nvidia", "qwq-32b", {"tensor_parallel_size": 2}),
        ("iluvatar", "qwq-32b", {"tensor_parallel_size": 4}),
        ("kunlunxin", "qwen3-235b-a22b", {"tensor_parallel_size": 8}),
        ("metax", "qwen3-235b-a22b", {"tensor_parallel_size": 8, "pipeline_parallel_size": 2}),
        ("thead", "deepseek-r1-0528", {"tensor_parallel_size": 16}),
        ("cpu", "qwen3-8b", {}),
        ("nvidia", "step3", {"tensor_parallel_size": 8, "pipeline_parallel_size": 1}),
    ],
)
def test_a_chips_memory_decides_over_how_many_cards_a_model_is_split(
    chip: str, model: str, arguments: dict[str, int]
) -> None:
    cell = one_cell(PROJECT, chip, model)
    for stack in cell.stacks:
        split = {k: v for k, v in cell.serve_arguments(stack).items() if k.endswith("_size")}
        assert split == arguments


def test_devices_and_variables_are_repeated_for_the_cards_that_a_cell_takes() -> None:
    run = Run(
        devices=["/dev/a{i}", "/dev/ctl"],
        volumes=["/x{i}:/x{i}"],
        environment={"ALL": "{cards}", "SAME": "yes"},
    )
    assert for_cards(run, Visible(container="CHOSEN", process="P"), 3) == Run(
        devices=["/dev/a0", "/dev/a1", "/dev/a2", "/dev/ctl"],
        volumes=["/x0:/x0", "/x1:/x1", "/x2:/x2"],
        environment={"CHOSEN": "0,1,2", "ALL": "0,1,2", "SAME": "yes"},
    )


def test_what_the_matrix_says_of_a_variable_wins_over_the_list_of_cards() -> None:
    run = Run(environment={"CHOSEN": "all"})
    assert for_cards(run, Visible(container="CHOSEN"), 2).environment == {"CHOSEN": "all"}


def test_ascend_gets_the_devices_of_its_cards_and_no_word_for_all_of_them() -> None:
    run = one_cell(PROJECT, "ascend", "qwq-32b").run
    assert run.devices[:2] == ["/dev/davinci0", "/dev/davinci1"]
    assert run.environment == {"ASCEND_VISIBLE_DEVICES": "0,1"}
    over_nodes = one_cell(PROJECT, "ascend", "kimi-k2-instruct")
    assert (over_nodes.cards, over_nodes.nodes) == (32, 4)
    assert over_nodes.run.environment == {"ASCEND_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}


def test_no_cell_of_the_matrix_leaves_a_placeholder_in_its_arguments() -> None:
    runs = [cell.run for cell in PROJECT.cells]
    words = [
        word for run in runs for word in (*run.devices, *run.volumes, *run.environment.values())
    ]
    assert [word for word in words if "{" in word] == []


def test_a_cell_that_needs_more_than_one_node_is_not_started_on_one() -> None:
    cell = one_cell(PROJECT, "nvidia", "kimi-k2-instruct")
    with pytest.raises(StageRefusedError) as caught:
        launch(cell, "flagos", "image", ROOT)
    assert str(caught.value) == (
        "nvidia/kimi-k2-instruct: serving takes 16 cards on 2 nodes, and a release serves on one\n"
        "hint: FlagScale serves over nodes with a hostfile; nothing here measures that"
    )


def test_a_cell_tells_what_nobody_knows_of_it() -> None:
    assert doubts(one_cell(PROJECT, "cpu", "smollm2")) == ()
    assert doubts(one_cell(PROJECT, "nvidia", "step3")) == (
        "642 GB of weights are much for 8 cards of 80 GB",
    )
    *of_the_cell, of_the_chip = doubts(one_cell(PROJECT, "sunrise", "deepseek-v3.1"))
    assert of_the_cell == [
        "takes 16 cards on 2 nodes, and a release serves on one",
        "its weights are fp8, and no source says that the chip serves them",
        "memory_gb is not known (no source says it); reckoned with 80 GB a card",
        "cards_per_node is not known (no source says it); reckoned with 8 cards a node",
    ]
    assert of_the_chip == PROJECT.matrix.chips["sunrise"].untested
    assert doubts(one_cell(PROJECT, "iluvatar", "qwen3-4b"))[:2] == (
        "Triton 3.1.0 of CoreX, which compiles native, is reported as fail",
        "Triton 3.1.0 of CoreX, which compiles flagos, is reported as fail",
    )
