"""From a cell's record to the operators at fault: what is probed, with what, and the files that are left behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.canonical import canonical, sha256_bytes, write_whole
from pipeline.cards.operator_issue import IssueFacts, operator_issue
from pipeline.cell import Cell
from pipeline.culprits import BisectResult, Level, Subject, evidence_bytes, exclusions_of
from pipeline.errors import StageRefusedError
from pipeline.gate.forecast import forecast
from pipeline.logit_policy import ProfileName
from pipeline.matrix import Target
from pipeline.matrix_patch import exclusion_patch, with_exclusions
from pipeline.names import names
from pipeline.probes.built import BuiltCell, candidate_of
from pipeline.probes.candidate import Candidate, Library, library_in, switch_of
from pipeline.probes.cell_check import known_check
from pipeline.probes.pregate import Oracle, references
from pipeline.probes.probers import restarted, switched
from pipeline.project import Project
from pipeline.record import Record
from pipeline.stages.bisect import BisectTask, bisect
from pipeline.stages.weights import check_whole
from pipeline.suite import pregate_prompts
from pipeline.world.engine import Engine
from pipeline.world.node import node_class

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is asked for."""

    stack: str
    level: Level
    budget_s: float
    width: int = 1  # engines side by side
    gpus: int = 1
    restarts: bool = False  # every probe a new engine, also while searching
    verify: ProfileName = "release"


def search_cell(
    served: BuiltCell, search: Search, say: Say
) -> tuple[BisectResult, tuple[Path, ...]]:
    """The answer and the files written."""
    library = library_in(served.engine, served.image, served.cell, search.stack)
    result = search_operators(served, search, library, say)
    return result, write_findings(result, served, library)


def newest_image(
    cell: Cell,
    past: Sequence[Record],
    project: Project,
    target: Target,
    engine: Callable[[], Engine],
    *,
    command: str,
) -> BuiltCell:
    """The newest image of the cell that was built, pulled, with whole weights."""
    for record in past:
        built, weights = record.stages.build, record.stages.weights
        if built and built.result and weights and weights.result:
            break
    else:
        raise StageRefusedError(
            "no image of this cell was built, or its weights are not there",
            where=f"{command} of {cell.id}",
            hint=f"run nox -s weights -- {cell.chip_id} {cell.model_id}",
        )
    check_whole(project.share, cell, weights.result)
    image = built.result.model
    served = BuiltCell(
        cell=cell,
        image=image.reference(names(cell, target).staging_host),
        config_digest=image.config_digest,
        weights_sha256=weights.result.sha256,
        project=project,
        engine=engine(),
    )
    served.engine.pull(served.image)
    return served


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The reference was asked; nothing is probed yet."""

    task: BisectTask
    candidate: Candidate
    gates: Mapping[ProfileName, Oracle]


def search_operators(served: BuiltCell, search: Search, library: Library, say: Say) -> BisectResult:
    """Serve, search and confirm. Answers and reference stay in the cell's folder, for the next run."""
    ready = prepare(served, search, library, say)
    with ExitStack() as engines:
        searcher = restarted(ready.candidate, ready.gates["quick"])
        if not search.restarts:
            searcher = engines.enter_context(switched(ready.candidate, ready.gates["quick"]))
        verifier = restarted(ready.candidate, ready.gates[search.verify])
        return bisect(ready.task, searcher, verifier, say)


def prepare(served: BuiltCell, search: Search, library: Library, say: Say) -> Prepared:
    cell, folder = served.cell, served.folder
    candidate = replace(
        candidate_of(served, search.stack, library),
        width=search.width if search.restarts else 1,
        gpus=search.gpus,
    )
    checked = known_check(served, search.stack)
    task = BisectTask(
        subject=subject_of(served, search),
        operators=tuple(sorted(searched(cell, search.stack, library))),
        likely=checked.wrong if checked else frozenset(),
        level=search.level,
        budget_s=search.budget_s,
        cache=folder / "probes",
    )
    say(
        f"{len(task.operators)} operators of {task.subject.library} are searched; {_cost(task, search)}"
    )
    profiles: tuple[ProfileName, ...] = tuple(dict.fromkeys(("quick", search.verify)))
    prompts = pregate_prompts(cell, served.project.lock, served.project.share / "download", say)
    asked = references(candidate, profiles, prompts, say)
    gates = {
        name: Oracle(
            reference=asked[name],
            limits=cell.gate.logits,
            prompts=prompts,
            model=cell.served_name,
            stack=search.stack,
            limit_s=cell.chip.start_budget_s,
        )
        for name in profiles
    }
    return Prepared(task=task, candidate=candidate, gates=gates)


def _cost(task: BisectTask, search: Search) -> str:
    """Engine starts cost a minute or more each, so they are said beforehand."""
    width = search.width if search.restarts else 1
    one = forecast(task.operators, width=width, likely=task.likely)
    starts = f"as many engine starts, {width} at once" if search.restarts else "one engine start"
    return (
        f"one culprit takes at most {one.probes} probes in {one.rounds} rounds ({starts}), several about as many each; "
        "3 more starts confirm it, and one asks the reference"
    )


def searched(cell: Cell, stack: str, library: Library) -> frozenset[str]:
    """What the stack has on: every operator that can be registered, without those already excluded."""
    switch = switch_of(cell, stack)
    return frozenset(switch.include or library.operators) - cell.excluded_operators(stack).keys()


def subject_of(served: BuiltCell, search: Search) -> Subject:
    cell, stack = served.cell, search.stack
    settings = [
        cell.serve_arguments(stack),
        {k: v for k, v in cell.environment(stack).items() if not k.startswith("VLLM_FL_FLAGOS_")},
        cell.run.model_dump(),
        [search.width, search.gpus],
    ]
    return Subject(
        cell=cell.id,
        stack=stack,
        image=served.config_digest,
        weights=served.weights_sha256,
        library=switch_of(cell, stack).library,
        settings=sha256_bytes(canonical(settings)),
        node=node_class(cell.chip),
    )


def write_findings(result: BisectResult, served: BuiltCell, library: Library) -> tuple[Path, ...]:
    """The evidence; and where the search came to an answer, the patch and one issue text a failing set."""
    files = {f"{result.id}.json": evidence_bytes(result)}
    cell, stack, matrix = served.cell, result.subject.stack, served.project.matrix_path
    if result.status == "found":
        name = (
            matrix.relative_to(served.project.root).as_posix() if matrix.is_absolute() else matrix
        )
        text = matrix.read_text("utf-8")
        patch = exclusion_patch(text, cell.id, exclusions_of(result), path=str(name))
        files[f"{result.id}.patch"] = patch.encode()
        checked = known_check(served, stack)
        facts = IssueFacts(
            packages=library.packages,
            device=result.subject.node,
            driver=library.driver,
            model=cell.model.title,
            command=" ".join(cell.serve_command(stack)),
            worker=str(cell.serve_arguments(stack).get("worker_cls", "")),
        )
        for number, failing in enumerate(result.failing_sets, start=1):
            call = checked.smallest_call(failing) if checked else ""
            issue = operator_issue(result, failing, replace(facts, smallest_call=call))
            files[f"{result.id}.issue-{number}.md"] = issue.encode()
    for file, content in files.items():
        write_whole(served.folder / file, content)
    return tuple(served.folder / file for file in files)


def apply_exclusions(result: BisectResult, cell: Cell, matrix: Path) -> None:
    """What the patch says, written into the matrix itself."""
    text = matrix.read_text("utf-8")
    write_whole(matrix, with_exclusions(text, cell.id, exclusions_of(result)).encode())
