"""How many cards a model takes, and what the server and `docker run` are told about it."""

from __future__ import annotations

import pytest

from pipeline.cells import exclusions
from pipeline.chip import Run, Visible
from pipeline.doubts import doubts
from pipeline.lock import weights_of
from pipeline.matrix_values import ServeValue
from pipeline.placement import cards_for, for_cards, obstacles
from tests.projects import committed, one_cell

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
        ("metax", "qwen3-next-80b-a3b", {"tensor_parallel_size": 4}),
        ("cambricon", "qwq-32b", {"tensor_parallel_size": 8}),
        ("sunrise", "qwen3-8b", {}),
        ("nvidia", "glm-4.5", {"tensor_parallel_size": 8}),
        ("nvidia", "ernie-4.5-300b-a47b-pt", {"tensor_parallel_size": 8}),
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


def test_cards_are_chosen_by_a_variable_that_somebody_reads() -> None:
    """A variable for the vendor's container runtime chooses nothing where that runtime is not used (chips.yaml)."""
    cells = {cell.chip_id: cell for cell in PROJECT.cells if cell.model_id == "qwen3-4b"}
    for chip in ("enflame", "hygon", "iluvatar", "metax", "sunrise", "tsingmicro"):
        cell = cells[chip]
        assert cell.run.runtime is None
        assert cell.chip.visible.container is None
        assert cell.run.environment[str(cell.chip.visible.process)] == "0"
    eight = one_cell(PROJECT, "enflame", "qwen3-next-80b-a3b").run.environment
    assert eight == {"TOPS_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}


def test_no_cell_of_the_matrix_leaves_a_placeholder_in_its_arguments() -> None:
    runs = [cell.run for cell in PROJECT.cells]
    words = [
        word for run in runs for word in (*run.devices, *run.volumes, *run.environment.values())
    ]
    assert [word for word in words if "{" in word] == []


EXCLUDED = exclusions(PROJECT.matrix)


def test_a_cell_that_needs_more_than_one_node_is_excluded_and_says_how_many() -> None:
    assert EXCLUDED["nvidia/kimi-k2-instruct"] == (
        "1030 GB of fp8 weights take 16 cards, 2 nodes: serving over several nodes is not built"
    )
    assert EXCLUDED["ascend/glm-4.5"] == (
        "716 GB of bfloat16 weights take 16 cards, 2 nodes: serving over several nodes is not built"
    )


def test_weights_of_a_type_that_no_source_says_the_chip_serves_exclude_a_cell() -> None:
    assert EXCLUDED["kunlunxin/deepseek-v3.1"] == (
        "no source says that the chip serves fp8; "
        "685 GB of fp8 weights take 16 cards, 2 nodes: serving over several nodes is not built"
    )
    served = {
        cell.chip_id for cell in PROJECT.cells if cell.model.size and cell.model.size.dtype == "fp8"
    }
    assert served == {"nvidia"}


def test_quantised_weights_are_not_served_as_another_type_and_others_may_be() -> None:
    chips, models = PROJECT.matrix.chips, PROJECT.matrix.models
    as_float16: dict[str, ServeValue] = {"dtype": "float16", "tensor_parallel_size": 1}
    assert "no source says that the chip serves fp8" in list(
        obstacles(chips["sunrise"], models["deepseek-v3.1"], as_float16)
    )
    assert list(obstacles(chips["sunrise"], models["qwen3-8b"], as_float16)) == []
    assert list(obstacles(chips["sunrise"], models["qwen3-8b"], {})) == [
        "no source says that the chip serves bfloat16"
    ]


def test_a_chip_without_a_pinned_vllm_serves_nothing() -> None:
    of_thead = [why for cell, why in EXCLUDED.items() if cell.startswith("thead/")]
    assert len(of_thead) == len(PROJECT.matrix.models)
    assert all(why.startswith("no vllm is pinned (build-infra builds no image") for why in of_thead)


def test_where_the_memory_of_a_card_is_not_known_no_number_of_cards_is_made_up() -> None:
    """A model is served on as many cards as its makers or FlagRelease say (facts/models.yaml), or not at all."""
    unknown = [chip for chip, block in PROJECT.matrix.chips.items() if "memory_gb" in block.unknown]
    assert unknown == ["cambricon", "sunrise", "tsingmicro"]
    planned = {cell.id: cell.cards for cell in PROJECT.cells if cell.chip_id in unknown}
    small = ("smollm2", "qwen3-4b", "qwen3-8b", "minicpm-v-4", "minicpm-o-4.5", "robobrain2.0-7b")
    assert planned == {
        **{f"{chip}/{model}": 1 for chip in unknown for model in small},
        "cambricon/qwq-32b": 8,
    }
    assert EXCLUDED["cambricon/qwen3-235b-a22b"] == (
        "memory_gb is not known (no first-hand source was found): "
        "nobody can say over how many cards 470 GB of bfloat16 weights are split"
    )
    assert EXCLUDED["sunrise/qwq-32b"] == (
        "takes 8 cards, and cards_per_node is not known (no source says it)"
    )


def test_weights_that_are_larger_than_all_its_cards_exclude_a_cell() -> None:
    chip, model = PROJECT.matrix.chips["nvidia"], PROJECT.matrix.models["step3"]
    pinned = {"tensor_parallel_size": 8}
    assert list(obstacles(chip, model, pinned)) == [
        "642 GB of bfloat16 weights do not fit into 8 cards of 80 GB"
    ]
    assert list(obstacles(chip, model, {"tensor_parallel_size": 16})) == [
        "642 GB of bfloat16 weights take 16 cards, 2 nodes: serving over several nodes is not built"
    ]


def test_step3_is_served_on_eight_cards_of_80_gb_with_the_weights_that_fit() -> None:
    cell = one_cell(PROJECT, "nvidia", "step3")
    assert (cell.cards, cell.model.weights.huggingface) == (8, "stepfun-ai/step3-fp8")
    assert PROJECT.matrix.models["step3"].weights.huggingface == "stepfun-ai/step3"
    assert weights_of(PROJECT.matrix)[cell.weights_id] == cell.model.weights


def test_every_cell_of_the_product_is_planned_or_excluded_with_a_reason() -> None:
    matrix, planned = PROJECT.matrix, {cell.id for cell in PROJECT.cells}
    assert len(planned) + len(EXCLUDED) == len(matrix.chips) * len(matrix.models) >= 150
    assert not planned & EXCLUDED.keys()
    assert all(EXCLUDED.values())
    for cell in PROJECT.cells:
        size, chip = cell.model.size, cell.chip
        if chip.smi is not None and size is not None and chip.memory_gb is not None:
            assert size.weights_gb < cell.cards * chip.memory_gb
            assert cell.cards <= (chip.cards_per_node or 1)


def test_a_cell_tells_what_nobody_knows_of_it() -> None:
    assert doubts(one_cell(PROJECT, "cpu", "smollm2")) == ()
    assert doubts(one_cell(PROJECT, "nvidia", "step3")) == ()
    *of_the_cell, of_the_chip = doubts(one_cell(PROJECT, "sunrise", "qwen3-8b"))
    assert of_the_cell == [
        "its weights are bfloat16 and served as float16",
        "memory_gb is not known (no source says it); on as many cards as its makers or FlagRelease serve it on",
        "cards_per_node is not known (no source says it)",
    ]
    assert of_the_chip == PROJECT.matrix.chips["sunrise"].untested
    assert doubts(one_cell(PROJECT, "iluvatar", "qwen3-4b"))[:2] == (
        "Triton 3.1.0 of CoreX, which compiles native, is reported as fail",
        "Triton 3.1.0 of CoreX, which compiles flagos, is reported as fail",
    )
