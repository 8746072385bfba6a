"""What a search leaves behind, and what it is told before it begins."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bisecting import (
    Search,
    apply_exclusions,
    newest_image,
    searched,
    subject_of,
    write_findings,
)
from pipeline.cards.operator_issue import IssueFacts, operator_issue
from pipeline.cell import Cell
from pipeline.cells import select
from pipeline.culprits import BisectResult, ProbeAnswer, Subject
from pipeline.errors import StageRefusedError
from pipeline.matrix_file import read_matrix
from pipeline.probes.candidate import Library
from pipeline.project import Project
from pipeline.stages.bisect import BisectTask, Prober, bisect
from pipeline.suite import pregate_prompts
from tests.fakes import FakeEngine
from tests.projects import ROOT, toy_project
from tests.toy_built import toy_built

OPERATORS = ("gelu", "mm", "pow", "silu", "sin", "softmax")
LIBRARY = Library(
    operators=OPERATORS, packages={"flag-gems": "5.0.2", "torch": "2.11.0", "python": "3.12.3"}
)
SEARCH = Search(stack="fast", level="fail", budget_s=60)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return toy_project(tmp_path)


@pytest.fixture
def cell(project: Project) -> Cell:
    return select(project.matrix, ["abacus", "poet"])[0]


def result_of(folder: Path, *families: str, budget_s: float = 60) -> BisectResult:
    """A search on a function; families are named like `pow+sin`."""
    wanted = [frozenset(family.split("+")) for family in families]

    def probe(enabled: frozenset[str], _: int) -> ProbeAnswer:
        fails = any(family <= enabled for family in wanted)
        numbers = {"prefill together kl_mean": 1.4 if fails else 0.0002}
        return ProbeAnswer(
            verdict="fail" if fails else "pass",
            detail="mean KL 1.4e+00 in prefill at batch 8" if fails else "mean KL 2.0e-04",
            numbers={**numbers, "prefill together top1_agreement": 0.34 if fails else 1},
            seconds=2,
            starts=1,
        )

    subject = Subject(
        cell="abacus/poet",
        stack="fast",
        image="sha256:cd",
        weights="ef",
        library="bead_operators",
        settings="01",
        node="NVIDIA H100",
    )
    task = BisectTask(
        subject=subject,
        operators=OPERATORS,
        likely=frozenset(),
        level="fail",
        budget_s=budget_s,
        cache=folder / "probes",
    )
    prober = Prober(profile="quick", width=1, probe=probe)
    return bisect(task, prober, prober, lambda _: None)


def test_findings_are_evidence_a_patch_that_git_applies_and_an_issue_for_every_failing_set(
    project: Project, cell: Cell
) -> None:
    result = result_of(project.root, "silu", "pow+sin")
    files = write_findings(result, toy_built(project, cell), LIBRARY)
    assert [path.relative_to(project.root).as_posix() for path in files] == [
        f"out/bisect/abacus/poet/{result.id}.json",
        f"out/bisect/abacus/poet/{result.id}.patch",
        f"out/bisect/abacus/poet/{result.id}.issue-1.md",
        f"out/bisect/abacus/poet/{result.id}.issue-2.md",
    ]
    assert BisectResult.model_validate_json(files[0].read_bytes()) == result
    subprocess.run(["git", "apply", files[1]], cwd=project.root, check=True)
    (patched,) = select(read_matrix(project.matrix_path), ["abacus", "poet"])
    assert set(patched.excluded_operators("fast")) == {"gelu", "pow", "silu", "softmax"}
    assert patched.excluded_operators("fast")["pow"].why == (
        "fails with sin on, and only with it: mean KL 1.4e+00 in prefill at batch 8"
    )


def test_what_was_found_can_be_written_into_the_matrix_as_the_patch_would(
    project: Project, cell: Cell
) -> None:
    result = result_of(project.root, "silu", "pow+sin")
    files = write_findings(result, toy_built(project, cell), LIBRARY)
    before = project.matrix_path.read_bytes()
    subprocess.run(["git", "apply", files[1]], cwd=project.root, check=True)
    patched = project.matrix_path.read_bytes()
    project.matrix_path.write_bytes(before)
    apply_exclusions(result, cell, project.matrix_path)
    assert project.matrix_path.read_bytes() == patched != before


def test_a_search_without_an_answer_leaves_evidence_alone(project: Project, cell: Cell) -> None:
    result = result_of(project.root, "silu", budget_s=0)
    files = write_findings(result, toy_built(project, cell), LIBRARY)
    assert [path.suffix for path in files] == [".json"]


def test_an_issue_has_versions_numbers_and_the_way_to_see_it(tmp_path: Path) -> None:
    result = result_of(tmp_path, "pow+sin")
    facts = IssueFacts(
        packages=LIBRARY.packages,
        device="NVIDIA H100",
        model="Poet-1B",
        command="flagscale serve poet",
        worker="beads.Worker",
        driver="580.159.04",
        smallest_call="torch.pow(torch.sin(x), 2)",
    )
    golden = (ROOT / "tests/golden/operator-issue.md").read_text("utf-8")
    assert operator_issue(result, ("pow", "sin"), facts) == golden.replace("EVIDENCE", result.id)


def test_only_operators_that_the_stack_has_on_are_searched(cell: Cell) -> None:
    assert searched(cell, "fast", LIBRARY) == {"mm", "pow", "silu", "sin"}
    with pytest.raises(StageRefusedError) as refused:
        searched(cell, "slow", LIBRARY)
    assert str(refused.value) == (
        "chips.abacus.stacks.slow: the stack slow loads no operator library, so there is nothing to search\n"
        "hint: name a stack that has `operators:` with --stack"
    )


def test_answers_are_for_one_configuration_whatever_is_excluded(
    project: Project, cell: Cell
) -> None:
    known = subject_of(toy_built(project, cell), SEARCH)
    freed = replace(cell, override=cell.override.model_copy(update={"env": {}}))
    no_cell_operators = type(cell.override.operators)()
    fewer = replace(
        cell, override=cell.override.model_copy(update={"operators": no_cell_operators})
    )
    assert subject_of(toy_built(project, fewer), SEARCH) == known
    assert subject_of(toy_built(project, freed), SEARCH) != known
    assert subject_of(toy_built(project, cell), replace(SEARCH, width=4)) != known


def test_a_cell_that_was_not_built_is_refused_before_any_engine_is_asked(
    project: Project, cell: Cell
) -> None:
    def no_engine() -> FakeEngine:
        raise AssertionError("an engine was asked for")

    with pytest.raises(StageRefusedError) as refused:
        newest_image(cell, (), project, project.target("local"), no_engine, command="bisect")
    assert str(refused.value) == (
        "bisect of abacus/poet: no image of this cell was built, or its weights are not there\n"
        "hint: run nox -s weights -- abacus poet"
    )


def test_prompts_need_a_locked_benchmark(project: Project, cell: Cell) -> None:
    with pytest.raises(StageRefusedError, match="is not locked"):
        pregate_prompts(cell, project.lock, project.share / "download", print)
    without = replace(cell, model=cell.model.model_copy(update={"benchmarks": []}))
    with pytest.raises(StageRefusedError, match="no benchmark is a builtin one"):
        pregate_prompts(without, project.lock, project.share / "download", print)
