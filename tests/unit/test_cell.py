"""Which cells a few words select, and what a cell has after chip, model, cell and stack are laid upon each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cells import cells, select
from pipeline.chip import Exclusion
from pipeline.errors import NothingSelectedError, PipelineError, UsageError
from pipeline.keys import flatten
from pipeline.matrix import Matrix
from pipeline.matrix_file import read_matrix
from tests.projects import TOY, edited, one_cell, toy_project

GELU = Exclusion(why="slow", evidence="2026.11.2.1")
SOFTMAX = Exclusion(why="wrong", evidence="2026.11.1.1")


def toy(folder: Path, *edits: tuple[str, str]) -> Matrix:
    return toy_project(folder, *edits).matrix


def ids(matrix: Matrix, *patterns: str) -> list[str]:
    return [cell.id for cell in select(matrix, patterns)]


def refusal(matrix: Matrix, *patterns: str) -> PipelineError:
    with pytest.raises(PipelineError) as caught:
        select(matrix, patterns)
    return caught.value


@pytest.mark.parametrize(
    ("patterns", "selected"),
    [
        ([], ["abacus/poet", "abacus/critic", "loom/poet"]),
        (["abacus"], ["abacus/poet", "abacus/critic"]),
        (["*", "poet"], ["abacus/poet", "loom/poet"]),
        (["[al]*", "p*"], ["abacus/poet", "loom/poet"]),
        (["loom/poet", "abacus/critic"], ["abacus/critic", "loom/poet"]),
        (["loom/*", "abacus/p*"], ["abacus/poet", "loom/poet"]),
        (["loom/"], ["loom/poet"]),
    ],
)
def test_words_and_globs_select_cells_in_the_order_of_the_file(
    tmp_path: Path, patterns: list[str], selected: list[str]
) -> None:
    assert ids(toy(tmp_path), *patterns) == selected


def test_a_word_that_names_no_chip_is_wrong_usage_with_the_nearest_name(tmp_path: Path) -> None:
    error = refusal(toy(tmp_path), "abacas", "poet")
    assert type(error) is UsageError
    assert str(error) == "no chip is called abacas\nhint: did you mean abacus?"


def test_a_word_that_names_no_model_is_wrong_usage_with_the_nearest_name(tmp_path: Path) -> None:
    error = refusal(toy(tmp_path), "abacus/poets")
    assert type(error) is UsageError
    assert str(error) == "no model is called poets\nhint: did you mean poet?"


def test_a_glob_that_matches_no_name_selects_nothing(tmp_path: Path) -> None:
    error = refusal(toy(tmp_path), "abacus", "qwen*")
    assert (type(error), error.exit_code) == (NothingSelectedError, 3)
    assert str(error) == "no model is called qwen*\nhint: known: critic, poet"


def test_an_excluded_cell_selects_nothing_and_is_named_with_its_reason(tmp_path: Path) -> None:
    error = refusal(toy(tmp_path), "loom", "critic")
    assert (type(error), error.exit_code) == (NothingSelectedError, 3)
    assert str(error) == (
        "no cell matches loom critic\n"
        "loom/critic: excluded, no loom is that large\n"
        "hint: `nox -s plan` lists the cells of the matrix"
    )


def test_only_exclusions_of_what_was_asked_for_are_named(tmp_path: Path) -> None:
    another = "    - {cell: abacus/critic, why: it clicks}\n    - {cell: loom/critic"
    error = refusal(toy(tmp_path, ("    - {cell: loom/critic", another)), "abacus", "critic")
    assert error.details == "abacus/critic: excluded, it clicks"


def test_three_words_without_a_slash_are_wrong_usage(tmp_path: Path) -> None:
    error = refusal(toy(tmp_path), "abacus", "poet", "critic")
    assert type(error) is UsageError
    assert str(error) == (
        "expected a chip and a model, got abacus poet critic\n"
        "hint: several cells are selected by globs (nvidia 'qwen*') or as chip/model words"
    )


def test_the_later_of_chip_model_cell_and_stack_wins(tmp_path: Path) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    assert cell.serve_arguments("slow") == {
        "enforce_eager": True,
        "dtype": "float32",
        "max_model_len": 2048,
        "max_num_seqs": 4,
    }
    assert cell.serve_arguments("fast")["dtype"] == "bfloat16"
    assert cell.environment("slow") == {"BEADS": "12"}
    assert cell.environment("fast") == {
        "BEADS": "12",
        "FAST": "1",
        "FLAGRELEASE_OPERATORS": "bead_operators",
        "FLAGRELEASE_OPERATORS_EVIDENCE": "/var/lib/flagscale/poet_fast/operators",
        "VLLM_FL_FLAGOS_BLACKLIST": "gelu,softmax",
    }


def test_exclusions_of_stack_and_cell_unite_where_there_is_an_operator_switch(
    tmp_path: Path,
) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    assert cell.excluded_operators("fast") == {"gelu": GELU, "softmax": SOFTMAX}
    assert cell.excluded_operators("slow") == {}
    other = one_cell(toy_project(tmp_path), "abacus", "critic")
    assert other.excluded_operators("fast") == {"softmax": SOFTMAX}


def test_a_cell_has_its_own_gate_and_benchmarks(tmp_path: Path) -> None:
    project = toy_project(
        tmp_path, ("gate: {margin: 0.1}", "gate: {margin: 0.1}\n      benchmarks: []")
    )
    cell = one_cell(project, "abacus", "poet")
    assert (cell.gate.alpha, cell.gate.margin, list(cell.benchmarks)) == (0.05, 0.1, [])
    other = one_cell(project, "loom", "poet")
    assert (other.gate.margin, list(other.benchmarks)) == (0.08, ["quiz"])


def test_nothing_depends_on_the_order_of_keys(tmp_path: Path) -> None:
    swapped = (
        ("    serve: {enforce_eager: true, dtype: float16}\n    env: {BEADS: \"10\"}\n", ""),
        (
            "    differs: [dtype]\n",
            "    differs: [dtype]\n    env: {BEADS: \"10\"}\n"
            "    serve: {dtype: float16, enforce_eager: true}\n",
        ),
        (
            "      serve: {max_num_seqs: 4}\n      env: {BEADS: \"12\"}\n",
            "      env: {BEADS: \"12\"}\n      serve: {max_num_seqs: 4}\n",
        ),
        ("{softmax: {why: wrong, evidence: 2026.11.1.1}}", "{softmax: {evidence: 2026.11.1.1, why: wrong}}"),
    )  # fmt: skip
    (tmp_path / "swapped.yaml").write_text(edited(TOY, *swapped), "utf-8")
    assert cells(read_matrix(tmp_path / "swapped.yaml")) == cells(toy(tmp_path))


def test_the_reference_comes_first_then_the_released_stack(tmp_path: Path) -> None:
    more = '    stacks:\n      aside: {title: {en: A, zh: A}}\n      slow: {title: {en: "{acc'
    cell = one_cell(
        toy_project(tmp_path, ('    stacks:\n      slow: {title: {en: "{acc', more)),
        "abacus",
        "poet",
    )
    assert cell.stacks == ("slow", "fast", "aside")
    assert one_cell(toy_project(tmp_path), "loom").stacks == ("plain",)


def test_the_released_stack_starts_without_an_argument_and_the_others_with_their_file(
    tmp_path: Path,
) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    conf = "/opt/venv/lib/python3.11/site-packages/flag_scale/examples/poet/conf"
    assert cell.serve_command("fast") == ("flagscale", "serve", "poet")
    assert cell.serve_command("slow") == ("flagscale", "serve", "poet", f"{conf}/serve.slow.yaml")


def test_names_of_the_cell_are_made_in_one_place(tmp_path: Path) -> None:
    cell = one_cell(toy_project(tmp_path), "abacus", "poet")
    assert (cell.id, cell.served_name, cell.weights_path) == (
        "abacus/poet",
        "poet-abacus-flagos",
        "/share/poet",
    )
    assert cell.stack_title("slow", "zh") == "Beads 慢"


def test_a_block_becomes_named_parts_and_absent_values_none() -> None:
    block = {"b": {"c": [1, 2], "d": None}, "a": True, "e": [], "f": {}}
    assert flatten(block, "x") == {"x.a": "True", "x.b.c": "1, 2"}
