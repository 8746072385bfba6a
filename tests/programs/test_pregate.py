"""The pre-gate between serving and asking, over a toy model behind vLLM's replies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.logit_policy import LogitLimits
from pipeline.next_step import next_step
from pipeline.stages.accuracy import without_items
from pipeline.stages.pregate import PreGate, PreGateRefusedError, PreGateTask
from pipeline.world.endpoint import Endpoint
from tests.fakes_model import ToyModel
from tests.fakes_server import Behaviour, StandInServer
from tests.programs.test_teacher import PROFILE, PROMPTS, TOP_K, endpoint_of, quiet
from tests.projects import one_cell, toy_project
from tests.unit.test_accuracy import task_in
from tests.unit.test_stack_operators import ASKED, process

WARNED_RUNS = 4


class Stacks:
    """Two stacks of a toy cell; counts how often each was served."""

    def __init__(self, folder: Path, candidate: ToyModel | None = None) -> None:
        self.folder = folder
        self.models = {"float32": ToyModel(), "bfloat16": candidate or ToyModel()}
        self.served: list[str] = []

    def gate(self, *, key: str = "key", fresh: bool = False, keeps: bool = True) -> PreGate:
        task = PreGateTask(
            key=key,
            reference="float32",
            candidate="bfloat16",
            profile=PROFILE,
            limits=LogitLimits(top_k=TOP_K),
            prompts=tuple(PROMPTS),
            runs_after_warning=WARNED_RUNS,
            folder=self.folder,
        )
        return PreGate(
            task,
            self.serve,
            quiet,
            fresh=fresh,
            look_at=lambda _: (process(),),
            keeps=lambda _: keeps,
        )

    @contextmanager
    def serve(self, stack: str) -> Iterator[Endpoint]:
        self.served.append(stack)
        with StandInServer(Behaviour(toy=self.models[stack])) as server:
            yield endpoint_of(server.url)


def both_up(stacks: Stacks, gate: PreGate) -> None:
    for stack in ("float32", "bfloat16"):
        with stacks.serve(stack) as endpoint:
            gate.on_served(stack, endpoint)


def test_equal_stacks_pass_and_need_one_run(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path)
    gate = stacks.gate()
    both_up(stacks, gate)
    assert gate.verdict().status == "pass"
    assert gate.least_runs() == 1
    assert stacks.served == ["float32", "bfloat16"]


def test_a_broken_candidate_is_refused_as_soon_as_it_is_up(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path, ToyModel(noise=2.0))
    gate = stacks.gate()
    with pytest.raises(PreGateRefusedError) as caught:
        both_up(stacks, gate)
    assert caught.value.verdict.status == "fail"
    assert caught.value.looks == {"bfloat16": (process(),)}
    with pytest.raises(PreGateRefusedError):
        gate.least_runs()


def test_a_refusal_records_what_the_candidate_ran_with(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path, ToyModel(noise=2.0))
    with pytest.raises(PreGateRefusedError) as caught:
        both_up(stacks, stacks.gate())
    task = replace(task_in(tmp_path), operators={"bfloat16": ASKED})
    result = without_items(task, caught.value.verdict, caught.value.looks)
    assert result.operators is not None
    assert result.operators["bfloat16"].ran == ("add",)
    assert without_items(task, caught.value.verdict, {}).operators is None


@pytest.mark.parametrize(("status", "is_told"), [("pass", False), ("warn", True), ("fail", True)])
def test_a_library_under_suspicion_is_told_with_the_search_for_its_operator(
    tmp_path: Path, status: str, is_told: bool
) -> None:
    stacks = Stacks(tmp_path)
    gate = stacks.gate()
    both_up(stacks, gate)
    logits = gate.verdict().model_copy(update={"status": status})
    result = without_items(task_in(tmp_path), logits, {})
    project = toy_project(tmp_path)
    told = next_step(one_cell(project, "abacus", "poet"), result)
    assert told == (
        "to find the operator at fault: nox -s bisect -- abacus poet" if is_told else ""
    )
    assert next_step(one_cell(project, "loom", "poet"), result) == ""
    assert next_step(one_cell(project, "abacus", "poet"), None) == ""


def test_traces_of_a_killed_run_are_used_again(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path)
    both_up(stacks, stacks.gate())
    again = stacks.gate()
    assert again.verdict().status == "pass"
    assert stacks.served == ["float32", "bfloat16"]


@pytest.mark.parametrize(("key", "fresh"), [("another", False), ("key", True)])
def test_another_key_or_asking_again_traces_both_stacks_anew(
    tmp_path: Path, key: str, fresh: bool
) -> None:
    stacks = Stacks(tmp_path)
    both_up(stacks, stacks.gate())
    assert stacks.gate(key=key, fresh=fresh).verdict().status == "pass"
    assert stacks.served == ["float32", "bfloat16"] * 2


def test_the_trace_of_a_stack_that_did_not_run_as_asked_is_not_used_again(tmp_path: Path) -> None:
    stacks = Stacks(tmp_path)
    both_up(stacks, stacks.gate(keeps=False))
    assert list(tmp_path.glob("*.npz")) == []
    stacks.models["bfloat16"] = ToyModel(noise=2.0)
    with pytest.raises(PreGateRefusedError):
        stacks.gate().verdict()


def test_a_stack_that_was_not_up_is_served_for_its_trace_alone(tmp_path: Path) -> None:
    """Where every answer is known already, nothing else would serve it."""
    stacks = Stacks(tmp_path)
    gate = stacks.gate()
    with stacks.serve("float32") as endpoint:
        gate.on_served("float32", endpoint)
    assert gate.least_runs() == 1
    assert stacks.served == ["float32", "bfloat16"]
