"""The stage: a real search with a probe that only computes; cache, budget, slots and confirmation are real."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.canonical import canonical
from pipeline.culprits import (
    BisectResult,
    ProbeAnswer,
    Subject,
    answer_of,
    evidence_bytes,
    exclusions_of,
)
from pipeline.errors import WorldError
from pipeline.probe_store import ProbeStore
from pipeline.stages.bisect import BisectTask, Prober, bisect

OPERATORS = tuple(f"op{number:02}" for number in range(40))
Operators = frozenset[str]
SUBJECT = Subject(
    cell="abacus/poet",
    stack="fast",
    image="sha256:0123",
    weights="4567",
    library="beads",
    settings="89ab",
    node="a bench",
)


@dataclass
class Bench:
    """Answers for families of culprits; every probe takes a minute of a clock that only probes move."""

    families: Iterable[Collection[str]] = ()
    verdict: str = "fail"
    minutes: float = 0
    asked: list[Operators] = field(default_factory=list)
    broken_after: int | None = None  # probes, then the node is gone
    says: list[str] = field(default_factory=list)

    def probe(self, enabled: Operators, slot: int) -> ProbeAnswer:
        assert slot == 0
        if len(self.asked) == self.broken_after:
            raise WorldError("the node is gone")
        self.asked.append(enabled)
        self.minutes += 1
        failing = any(set(family) <= enabled for family in self.families)
        return ProbeAnswer.model_validate(
            {
                "verdict": self.verdict if failing else "pass",
                "detail": "mean KL 1.4" if failing else "mean KL 0.0001",
                "numbers": {"kl_mean": 1.4 if failing else 0.0001},
                "seconds": 60.0,
                "starts": 1,
            }
        )

    def prober(self, profile: str = "quick") -> Prober:
        return Prober(profile=profile, width=1, probe=self.probe)

    def bisect(
        self, task: BisectTask, verifier: Prober | None = None, profile: str = "quick"
    ) -> BisectResult:
        searcher = self.prober(profile)
        return bisect(
            task, searcher, verifier or searcher, self.says.append, clock=lambda: self.minutes * 60
        )


@pytest.fixture
def task(tmp_path: Path) -> BisectTask:
    return BisectTask(
        subject=SUBJECT,
        operators=OPERATORS,
        likely=frozenset(),
        level="fail",
        budget_s=3600,
        cache=tmp_path / "probes",
    )


def test_a_culprit_and_a_pair_are_found_and_each_statement_is_asked_once_more(
    task: BisectTask,
) -> None:
    bench = Bench([{"op07"}, {"op12", "op30"}])
    result = bench.bisect(task)
    assert result.status == "found"
    assert result.failing_sets == (("op07",), ("op12", "op30"))
    assert result.exclusion == ("op07", "op12")
    assert {check.says: check.held for check in result.checks} == {
        "everything but the exclusion passes": True,
        "op12 + op30 alone fails": True,
        "op12 alone passes": True,
        "op30 alone passes": True,
        "op07 alone fails": True,
        "none on passes": True,
    }
    assert result.sentence == (
        "op07 fails alone; op12 + op30 fail only together; without op07, op12 all others pass"
    )
    assert result.starts == len(bench.asked) == len(result.probes)
    assert result.probe_seconds == 60 * len(bench.asked)


@pytest.mark.parametrize("verdict", ["fail", "crash", "hang"])
def test_a_probe_that_crashes_or_hangs_counts_as_failing(task: BisectTask, verdict: str) -> None:
    result = Bench([{"op07"}], verdict=verdict).bisect(task)
    assert result.failing_sets == (("op07",),)


def test_a_warning_counts_as_failing_only_where_warnings_are_searched(task: BisectTask) -> None:
    bench = Bench([{"op07"}], verdict="warn")
    assert bench.bisect(task).status == "nothing_fails"
    assert bench.bisect(replace(task, level="warn")).exclusion == ("op07",)


def test_an_interrupted_search_goes_on_where_it_was(task: BisectTask) -> None:
    whole = Bench([{"op07"}])
    expected = whole.bisect(replace(task, cache=task.cache / "other"))
    first = Bench([{"op07"}], broken_after=5)
    with pytest.raises(WorldError, match="the node is gone"):
        first.bisect(task)
    second = Bench([{"op07"}])
    result = second.bisect(task)
    assert first.asked + second.asked == whole.asked
    assert result.cached == 5
    assert result.probes == expected.probes


def test_a_finished_search_asks_nothing_when_run_again(task: BisectTask) -> None:
    Bench([{"op07"}]).bisect(task)
    again = Bench([{"op07"}])
    result = again.bisect(task)
    assert again.asked == []
    assert (result.status, result.cached) == ("found", len(result.probes))


@pytest.mark.parametrize("field", list(Subject.model_fields))
def test_answers_belong_to_one_subject(task: BisectTask, field: str) -> None:
    Bench([{"op07"}]).bisect(task)
    other = SUBJECT.model_copy(update={field: "another"})
    bench = Bench([{"op07"}])
    assert bench.bisect(replace(task, subject=other)).cached == 0


def test_an_answer_that_is_half_written_is_asked_again(tmp_path: Path) -> None:
    store = ProbeStore(tmp_path, SUBJECT)
    answer = ProbeAnswer(verdict="pass", detail="", seconds=1, starts=1)
    store.put("quick", frozenset({"op01"}), answer)
    assert store.get("quick", frozenset({"op01"})) == answer
    assert store.get("full", frozenset({"op01"})) is None
    (file,) = tmp_path.iterdir()
    file.write_bytes(canonical({"verdict": "pass"}))
    assert store.get("quick", frozenset({"op01"})) is None


def test_a_search_stops_at_its_budget_and_says_what_it_knows(task: BisectTask) -> None:
    bench = Bench([{"op07"}, {"op30"}])
    result = bench.bisect(replace(task, budget_s=12 * 60))
    assert len(bench.asked) == 12
    assert result.status == "budget_ended"
    assert result.failing_sets == (("op07",),)
    assert "op30" in result.suspects
    assert len(result.suspects) < 40
    assert result.sentence == "the budget ended first; known so far: op07 fails alone"


def test_a_run_with_a_new_budget_goes_on_to_the_answer(task: BisectTask) -> None:
    short = replace(task, budget_s=6 * 60)
    results = [Bench([{"op07"}, {"op30"}]).bisect(short) for _ in range(8)]
    assert [result.status for result in results][-1] == "found"
    assert results[0].status == "budget_ended"


def test_a_budget_that_ends_before_the_answer_is_confirmed_confirms_nothing(
    task: BisectTask,
) -> None:
    bench = Bench([{"op07"}])
    searched = len(bench.bisect(replace(task, cache=task.cache / "other")).probes) - 3
    result = Bench([{"op07"}]).bisect(replace(task, budget_s=searched * 60))
    assert (result.status, result.exclusion, result.checks) == ("budget_ended", ("op07",), ())


def test_what_the_quick_way_missed_is_searched_for_with_the_way_that_counts(
    task: BisectTask,
) -> None:
    """The full gate also sees op21; op07 is suspected first then, so it costs few probes."""
    quick, full = Bench([{"op07"}]), Bench([{"op07"}, {"op21"}])
    result = quick.bisect(task, full.prober("full"))
    assert result.status == "found"
    assert set(result.failing_sets) == {("op07",), ("op21",)}
    assert {probe.profile for probe in result.probes} == {"quick", "full", "full, once more"}


def test_an_unsteady_server_is_told_as_such(task: BisectTask) -> None:
    bench = Bench([{"op07"}])

    def steady_no_more(enabled: Operators, slot: int) -> ProbeAnswer:
        answer = bench.probe(enabled, slot)
        alone = enabled == {"op07"} and bench.asked.count(enabled) > 1
        return answer.model_copy(update={"verdict": "pass"}) if alone else answer

    prober = Prober(profile="quick", width=1, probe=steady_no_more)
    result = bisect(task, prober, prober, bench.says.append)
    assert result.status == "not_confirmed"
    assert [check.says for check in result.checks if not check.held] == ["op07 alone fails"]
    assert "DOES NOT HOLD: op07 alone fails" in bench.says


@pytest.mark.parametrize(
    ("families", "status", "sentence"),
    [
        ((), "nothing_fails", "with all operators on it passes, so there is nothing to find"),
        ([()], "no_operator", "it fails with no operator on, so the fault is elsewhere"),
    ],
)
def test_a_fault_that_no_operator_causes_is_blamed_on_none(
    task: BisectTask, families: list[tuple[str, ...]], status: str, sentence: str
) -> None:
    result = Bench(families).bisect(task)
    assert (result.status, result.sentence, result.exclusion) == (status, sentence, ())
    assert len(result.probes) == 2


def test_parallel_probes_have_slots_of_their_own(task: BisectTask) -> None:
    """Three wait for each other, which only three at once can."""
    together, taken, lock = threading.Barrier(3, timeout=10), set[int](), threading.Lock()
    sizes: list[int] = []

    def probe(enabled: Operators, slot: int) -> ProbeAnswer:
        with lock:
            assert slot not in taken
            taken.add(slot)
            sizes.append(len(enabled))
        if len(sizes) <= 3:
            together.wait()
        with lock:
            taken.remove(slot)
        verdict = "fail" if "op07" in enabled else "pass"
        return ProbeAnswer.model_validate(
            {"verdict": verdict, "detail": "", "seconds": 1, "starts": 1}
        )

    prober = Prober(profile="quick", width=3, probe=probe)
    result = bisect(task, prober, prober, lambda _: None)
    assert result.exclusion == ("op07",)
    assert result.rounds < len(result.probes) / 2


def test_progress_tells_probe_verdict_suspects_and_minutes(task: BisectTask) -> None:
    bench = Bench([{"op07"}])
    bench.bisect(task)
    assert bench.says[0] == (
        "probe 1, 40 of 40 on: fail, mean KL 1.4 (60 s; 40 suspects; 1.0 of 60 min)"
    )
    assert "confirming with 3 probes: op07 fails alone; without op07 all others pass" in bench.says


def test_evidence_is_named_by_its_content_and_says_why_each_operator_is_excluded(
    task: BisectTask,
) -> None:
    result = Bench([{"op07"}, {"op12", "op30"}]).bisect(task)
    assert BisectResult.model_validate_json(evidence_bytes(result)) == result
    assert {name: found.why for name, found in exclusions_of(result).items()} == {
        "op07": "fails when on alone: mean KL 1.4",
        "op12": "fails with op30 on, and only with it: mean KL 1.4",
    }
    assert {found.evidence for found in exclusions_of(result).values()} == {result.id}
    answer = answer_of(["op07"], result)
    assert answer is not None
    assert answer.numbers == {"kl_mean": 1.4}
