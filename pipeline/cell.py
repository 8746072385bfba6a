"""A cell `<chip>/<model>` with everything the matrix says of it, resolved. `names.py` makes its names."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.benchmark import Benchmark
from pipeline.chip import Chip, Exclusion, Run
from pipeline.matrix import CellOverride, Project
from pipeline.matrix_values import Problem, ServeValue
from pipeline.model import LoadProfile, Model
from pipeline.operator_evidence import AskedOperators
from pipeline.placement import cards_of, for_cards, placement
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
