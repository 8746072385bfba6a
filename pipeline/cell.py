"""A cell `<chip>/<model>` with everything the matrix says of it, resolved. `names.py` makes its names."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.benchmark import Benchmark
from pipeline.chip import Chip, Exclusion, Run
from pipeline.errors import NothingSelectedError, UsageError
from pipeline.matrix import CellOverride, Matrix, Project
from pipeline.matrix_names import nearest
from pipeline.matrix_values import Problem, ServeValue
from pipeline.model import LoadProfile, Model
from pipeline.operator_evidence import AskedOperators
from pipeline.placement import cards_of, for_cards, obstacles, placement
from pipeline.policy import Gate

COMPILERS = "/opt/compilers"  # in the image, a folder for each
KERNELS = "/var/cache/flagos"  # in the container, for what is compiled or tuned while serving


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One chip and one model; overrides of the cell are already applied in what its methods return."""

    chip_id: str
    model_id: str
    chip: Chip
    model: Model
    project: Project
    override: CellOverride
    base_gate: Gate
    all_benchmarks: Mapping[str, Benchmark]

    @property
    def id(self) -> str:
        return f"{self.chip_id}/{self.model_id}"

    @property
    def served_name(self) -> str:
        return f"{self.model_id}-{self.chip_id}-flagos"

    @property
    def weights_id(self) -> str:
        """Names the pin of its weights in matrix.lock: the model's, or its own."""
        return self.id if self.override.weights else self.model_id

    @property
    def weights_path(self) -> str:
        """Where the weights lie inside the container, and on the host of the card's reader."""
        return f"/share/{self.model_id}"

    @property
    def stacks(self) -> tuple[str, ...]:
        """The reference first, then the released one, then the others by name."""
        first = (self.chip.reference, self.chip.released)
        rest = sorted(name for name in self.chip.stacks if name not in first)
        return tuple(dict.fromkeys((*first, *rest)))

    def stack_title(self, stack: str, language: str) -> str:
        title: str = getattr(self.chip.stacks[stack].title, language)
        return title.replace("{accelerator}", self.chip.accelerator)

    def serve_arguments(self, stack: str) -> dict[str, ServeValue]:
        """Arguments of the server: cards, then chip, then model, cell and stack; the later one wins."""
        return {
            **placement(self.chip, self.model),
            **self.chip.serve,
            **self.model.serve,
            **self.override.serve,
            **self.chip.stacks[stack].serve,
        }

    def environment(self, stack: str) -> dict[str, str]:
        return {
            **self.chip.env,
            **self.override.env,
            **self._compiler_variables(stack),
            **self.kernel_caches(stack),
            **self.chip.stacks[stack].env,
            **self._operator_variables(stack),
        }

    def kernel_caches(self, stack: str) -> dict[str, str]:
        return {name: f"{KERNELS}/{name.lower()}" for name in self.chip.stacks[stack].kernel_caches}

    def _compiler_variables(self, stack: str) -> dict[str, str]:
        """The image's own path has the released stack's compiler; another stack needs the whole path anew.

        FlagScale's start script takes no `$PYTHONPATH` in a value, and starts a program of its own under this path.
        """
        compiler = self.chip.stacks[stack].compiler
        if compiler == self.chip.stacks[self.chip.released].compiler:
            return {}
        own = f"{self.site_packages}/flag_scale"
        return {"PYTHONPATH": ":".join([*self.python_path(stack), own])}

    def python_path(self, stack: str) -> tuple[str, ...]:
        """Where Python looks for our hook, the compiler of a stack, and what the vendor's software brings."""
        compiler, vendor = self.chip.stacks[stack].compiler, self.chip.image_env.get("PYTHONPATH")
        folders = ("/opt/flagrelease", f"{COMPILERS}/{compiler}" if compiler else "", vendor or "")
        return tuple(folder for folder in folders if folder)

    @property
    def cards(self) -> int:
        return cards_of(self.serve_arguments(self.chip.released))

    @property
    def user_run(self) -> Run:
        """`run` of a reader: with a volume, so that the next container need not compile and tune anew."""
        kept = (
            [f"{self.served_name}-kernels:{KERNELS}"]
            if self.kernel_caches(self.chip.released)
            else []
        )
        return self.run.model_copy(update={"volumes": [*self.run.volumes, *kept]})

    @property
    def load(self) -> LoadProfile:
        return self.override.load or self.model.load

    @property
    def run(self) -> Run:
        """Arguments of `docker run` for the cards that this cell takes."""
        return for_cards(self.chip.run, self.chip.visible, self.cards)

    def excluded_operators(self, stack: str) -> dict[str, Exclusion]:
        """Operators that chip and cell leave out; none on a stack that has no operator switch."""
        operators = self.chip.stacks[stack].operators
        if operators is None:
            return {}
        return dict(sorted({**operators.exclude, **self.override.operators.exclude}.items()))

    def asked_operators(self, stack: str) -> AskedOperators | None:
        operators = self.chip.stacks[stack].operators
        if operators is None:
            return None
        return AskedOperators(
            library=operators.library,
            include=tuple(sorted(operators.include)),
            exclude=tuple(self.excluded_operators(stack)),
        )

    def _operator_variables(self, stack: str) -> dict[str, str]:
        """What the worker's hook reads (docs/operators.md); the lists are those of vllm-plugin-FL."""
        operators = self.chip.stacks[stack].operators
        if operators is None:
            return {}
        variables = {
            "FLAGRELEASE_OPERATORS": operators.library,
            "FLAGRELEASE_OPERATORS_EVIDENCE": self.operator_evidence(stack),
            "VLLM_FL_FLAGOS_WHITELIST": ",".join(operators.include),
            "VLLM_FL_FLAGOS_BLACKLIST": ",".join(self.excluded_operators(stack)),
        }
        return {name: value for name, value in variables.items() if value}

    @property
    def site_packages(self) -> str:
        return f"{self.chip.venv}/lib/python{self.chip.python}/site-packages"

    @property
    def conf_folder(self) -> str:
        """Where `flagscale serve <model>` looks for a model's experiment."""
        return f"{self.site_packages}/flag_scale/examples/{self.model_id}/conf"

    def experiment_file(self, stack: str) -> str:
        return "serve.yaml" if stack == self.chip.released else f"serve.{stack}.yaml"

    def serve_command(self, stack: str) -> tuple[str, ...]:
        """What starts a stack inside the container. The released one needs no argument."""
        command = ("flagscale", "serve", self.model_id)
        if stack == self.chip.released:
            return command
        return (*command, f"{self.conf_folder}/{self.experiment_file(stack)}")

    def log_path(self, stack: str) -> str:
        """The server's own log inside the container, where FlagScale puts it."""
        return f"/var/lib/flagscale/{self.model_id}_{stack}/serve_logs/host_0_localhost.output"

    def operator_evidence(self, stack: str) -> str:
        """The folder inside the container where workers write which operators ran."""
        return f"/var/lib/flagscale/{self.model_id}_{stack}/operators"

    @property
    def evidence_folders(self) -> tuple[str, ...]:
        """Of every stack: a stack that loads what is not its own may write into the folder of another."""
        return tuple(self.operator_evidence(stack) for stack in self.stacks)

    @property
    def known_problems(self) -> tuple[Problem, ...]:
        """Of the chip, where it concerns this model, then of the model."""
        of_chip = (
            Problem(en=problem.en, zh=problem.zh, source=problem.source)
            for problem in self.chip.known_problems
            if any(fnmatch.fnmatchcase(self.model_id, glob) for glob in problem.models)
        )
        return (*of_chip, *self.model.known_problems)

    @property
    def gate(self) -> Gate:
        changes = {
            **self.model.gate.model_dump(exclude_none=True),
            **self.override.gate.model_dump(exclude_none=True),
        }
        return Gate.model_validate({**self.base_gate.model_dump(), **changes})

    @property
    def benchmarks(self) -> dict[str, Benchmark]:
        names = (
            self.model.benchmarks if self.override.benchmarks is None else self.override.benchmarks
        )
        return {name: self.all_benchmarks[name] for name in names}


def cells(matrix: Matrix) -> tuple[Cell, ...]:
    """Every cell of the product that is not excluded, in the order of the file."""
    every = tuple(product(matrix))
    excluded = _exclusions(matrix, every)
    return tuple(cell for cell in every if cell.id not in excluded)


def exclusions(matrix: Matrix) -> dict[str, str]:
    """Why cells of the product are none, by id: as the matrix says, or because no node of the chip holds the model."""
    return _exclusions(matrix, product(matrix))


def _exclusions(matrix: Matrix, every: Iterable[Cell]) -> dict[str, str]:
    said = {exclusion.cell: exclusion.why for exclusion in matrix.cells.exclude}
    found = {}
    for cell in every:
        arguments = cell.serve_arguments(cell.chip.released)
        why = said.get(cell.id) or "; ".join(obstacles(cell.chip, cell.model, arguments))
        if why:
            found[cell.id] = why
    return found


def product(matrix: Matrix) -> Iterator[Cell]:
    """Every chip with every model, excluded or not."""
    for chip_id, chip in matrix.chips.items():
        for model_id, model in matrix.models.items():
            override = matrix.cells.overrides.get(f"{chip_id}/{model_id}", CellOverride())
            yield Cell(
                chip_id=chip_id,
                model_id=model_id,
                chip=chip,
                model=_with_own_weights(model, override),
                project=matrix.project,
                override=override,
                base_gate=matrix.gate,
                all_benchmarks=matrix.benchmarks,
            )


def _with_own_weights(model: Model, override: CellOverride) -> Model:
    own = {name: value for name in ("weights", "size") if (value := getattr(override, name))}
    return model.model_copy(update=own) if own else model


def select(matrix: Matrix, patterns: Sequence[str]) -> tuple[Cell, ...]:
    """Cells whose chip and model match the globs: `[]`, `[chip]`, `[chip, model]` or `["chip/model", …]`.

    Raises UsageError for a word that names nothing known, NothingSelectedError when no cell is left.
    """
    asked = _asked(matrix, patterns)
    chosen = tuple(cell for cell in cells(matrix) if cell.id in asked)
    if not chosen:
        excluded = excluded_of(matrix, patterns)
        reasons = [f"{cell}: excluded, {why}" for cell, why in excluded.items()]
        raise NothingSelectedError(
            f"no cell matches {' '.join(patterns)}",
            details="\n".join(reasons),
            hint="`nox -s plan` lists the cells of the matrix",
        )
    return chosen


def excluded_of(matrix: Matrix, patterns: Sequence[str]) -> dict[str, str]:
    """Of the cells that match, those that are excluded, and why."""
    asked = _asked(matrix, patterns)
    return {cell: why for cell, why in exclusions(matrix).items() if cell in asked}


def _asked(matrix: Matrix, patterns: Sequence[str]) -> set[str]:
    pairs = _pairs(patterns)
    for chip_glob, model_glob in pairs:
        _must_match(chip_glob, matrix.chips, "chip")
        _must_match(model_glob, matrix.models, "model")
    return {
        f"{chip}/{model}"
        for chip in matrix.chips
        for model in matrix.models
        if any(
            fnmatch.fnmatchcase(chip, chip_glob) and fnmatch.fnmatchcase(model, model_glob)
            for chip_glob, model_glob in pairs
        )
    }


def _pairs(patterns: Sequence[str]) -> list[tuple[str, str]]:
    if any("/" in pattern for pattern in patterns):
        split = [pattern.partition("/") for pattern in patterns]
        return [(chip, model or "*") for chip, _, model in split]
    if len(patterns) > 2:
        raise UsageError(
            f"expected a chip and a model, got {' '.join(patterns)}",
            hint="several cells are selected by globs (nvidia 'qwen*') or as chip/model words",
        )
    chip, model = [*patterns, "*", "*"][:2]
    return [(chip, model)]


def _must_match(glob: str, known: Iterable[str], kind: str) -> None:
    words = list(known)
    if not any(fnmatch.fnmatchcase(word, glob) for word in words):
        wild = any(sign in glob for sign in "*?[")
        error = NothingSelectedError if wild else UsageError
        raise error(f"no {kind} is called {glob}", hint=nearest(glob, words))


def flatten(value: Any, path: str) -> dict[str, str]:
    """A resolved block as `path.to.value → text`, for the named parts of a key."""
    if isinstance(value, Mapping):
        return {k: v for key in value for k, v in flatten(value[key], f"{path}.{key}").items()}
    if isinstance(value, list | tuple):
        return {path: ", ".join(str(item) for item in value)} if value else {}
    return {} if value is None else {path: str(value)}
