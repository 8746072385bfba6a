"""Loads an operator library into the process that computes, and writes down what it does there.

FlagGems is one such library (`flaggems.py`). Variables of the served stack say which one, and which of its operators:

    FLAGRELEASE_OPERATORS           module of the library; unset: none is loaded
    FLAGRELEASE_OPERATORS_EVIDENCE  folder for the evidence, one JSON file a process
    FLAGRELEASE_OPERATORS_PROBE     set by a search for operators at fault: none at all may be on, too
    FLAGRELEASE_OPERATORS_CHECK     folder for a check of every operator against the CPU (`operator_check.py`)
    VLLM_FL_FLAGOS_WHITELIST        only these operators, separated by commas (as vllm-plugin-FL reads it)
    VLLM_FL_FLAGOS_BLACKLIST        all but these
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import multiprocessing.util
import os
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

logger = logging.getLogger("vllm.flagrelease")
SCHEMA = 1
WRITE_EVERY_S = 2.0  # what a SIGKILL loses at most


class OperatorError(RuntimeError):
    """The library is not in the state that was asked for; serving would measure something else."""


class Library(Protocol):
    """What a library's module has. Operators go by function name."""

    BACKEND: str  # dispatch key of its kernels: CPU, CUDA

    def available(self) -> Mapping[str, Sequence[str]]:
        """Every operator it can register, with its entries in torch's dispatcher ("aten::mm"), or () for none."""

    def enable(self, include: Collection[str], exclude: Collection[str]) -> None:
        """Register `include`, or without one all but `exclude`. Called again, it turns everything else off."""

    def registered(self) -> Collection[str]:
        """The operators it believes to be on."""

    def calls(self) -> Mapping[str, int]:
        """How often each operator has run in this process."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    library: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    evidence: Path | None
    is_probe: bool = False
    check: Path | None = None


def asked_by(environment: Mapping[str, str]) -> Asked | None:
    """What the variables ask for; None where they name no library."""
    library = environment.get("FLAGRELEASE_OPERATORS", "")
    if not library:
        return None
    include = _listed(environment.get("VLLM_FL_FLAGOS_WHITELIST", ""))
    exclude = _listed(environment.get("VLLM_FL_FLAGOS_BLACKLIST", ""))
    if include and exclude:
        raise OperatorError("VLLM_FL_FLAGOS_WHITELIST and VLLM_FL_FLAGOS_BLACKLIST are both set")
    folder = environment.get("FLAGRELEASE_OPERATORS_EVIDENCE", "")
    check = environment.get("FLAGRELEASE_OPERATORS_CHECK", "")
    return Asked(
        library=library,
        include=include,
        exclude=exclude,
        evidence=Path(folder) if folder else None,
        is_probe=bool(environment.get("FLAGRELEASE_OPERATORS_PROBE")),
        check=Path(check) if check else None,
    )


def load_operators(*, rank: int, required: bool = False) -> Operators | None:
    """Called by a worker once its device is set. Raises OperatorError unless exactly what was asked for is on."""
    asked = asked_by(os.environ)
    if asked is None:
        if required:
            raise OperatorError(
                "this worker loads an operator library, but FLAGRELEASE_OPERATORS is not set"
            )
        return None
    library = cast(Library, importlib.import_module(asked.library))
    operators = Operators(library, asked.library, rank=rank, check=asked.check)
    operators.switch(asked.include, asked.exclude, may_be_none=asked.is_probe)
    if asked.evidence is not None:
        operators.keep_evidence(asked.evidence)
    return operators


class Operators:
    """A library in this process: switched on, checked, and its evidence kept."""

    def __init__(
        self, library: Library, name: str, *, rank: int, check: Path | None = None
    ) -> None:
        self._library = library
        self._name = name
        self._rank = rank
        self._started = time.time()
        self._available = {operator: tuple(at) for operator, at in library.available().items()}
        self._before = self._kernels()
        self._asked: Mapping[str, list[str]] = {}
        self.registered: tuple[str, ...] = ()
        self._dispatcher: Mapping[str, str] = {}
        self._check = self._checked_in(check) if check else None

    def switch(
        self, include: Collection[str], exclude: Collection[str], *, may_be_none: bool = False
    ) -> None:
        """Turn on what is asked for and nothing else; may be called again while serving."""
        if unknown := sorted({*include, *exclude} - self._available.keys()):
            raise OperatorError(f"{self._name} has no operators called {', '.join(unknown)}")
        with self._check.wrapping() if self._check else contextlib.nullcontext():
            self._library.enable(include, exclude)
        kernels = self._kernels()
        replaced = self._replaced(kernels)
        wanted = set(include) or self._available.keys() - set(exclude)
        on = {operator for operator in wanted if all(replaced[operator])}
        if wanted - on or not (on or may_be_none):
            raise OperatorError(
                f"{self._name} registered {len(on)} of {len(wanted)} operators, "
                f"without {', '.join(sorted(wanted - on)) or 'any'}"
            )
        if surplus := sorted(name for name in replaced.keys() - wanted if any(replaced[name])):
            raise OperatorError(
                f"{self._name} registered operators that were not asked for: {', '.join(surplus)}"
            )
        logger.info(
            "%s: %d operators on, %d off", self._name, len(on), len(self._available) - len(on)
        )
        self._asked = {"include": sorted(include), "exclude": sorted(exclude)}
        self.registered = tuple(sorted(on))
        self._dispatcher = {at: kernels[at] for name in on for at in self._available[name]}
        if self._check:
            self._check.watch({name: self._available[name] for name in self.registered})

    def during(self, phase: str) -> contextlib.AbstractContextManager[None]:
        """What a check sees until it ends belongs to this phase."""
        return self._check.during(phase) if self._check else contextlib.nullcontext()

    def _checked_in(self, folder: Path) -> Any:
        from flagrelease_serving.operator_check import OperatorCheck  # needs torch

        return OperatorCheck(self._library.BACKEND, self._available, folder, rank=self._rank)

    def _replaced(self, now: Mapping[str, str]) -> dict[str, list[bool]]:
        """For each entry of an operator whether the dispatcher calls another kernel than before.

        The library's own word counts only outside the dispatcher: FlagGems notes an operator before it registers it.
        """
        said = set(self._library.registered())
        return {
            operator: [now[at] != self._before[at] for at in entries] or [operator in said]
            for operator, entries in self._available.items()
        }

    def keep_evidence(self, folder: Path) -> None:
        """Write the evidence now, then whenever calls were made, and when the process ends."""
        path = folder / f"rank{self._rank}.{os.getpid()}.json"

        def write(*, ended: bool) -> None:
            found = {**self.evidence(), "ended": ended}
            _write_whole(path, json.dumps(found, indent=1, sort_keys=True))

        def keep() -> None:
            last: Mapping[str, int] = {}
            while not stop.wait(WRITE_EVERY_S):
                if (calls := dict(self._library.calls())) != last:
                    write(ended=False)
                    last = calls

        def end() -> None:
            stop.set()
            keeper.join()
            write(ended=True)

        stop = threading.Event()
        keeper = threading.Thread(target=keep, name="operator-evidence", daemon=True)
        write(ended=False)
        keeper.start()
        # vLLM's workers are children of multiprocessing, where atexit is not always run.
        multiprocessing.util.Finalize(None, end, exitpriority=0)

    def evidence(self) -> dict[str, Any]:
        return {
            "evidence_schema": SCHEMA,
            "library": self._name,
            "backend": self._library.BACKEND,
            "rank": self._rank,
            "process": os.getpid(),
            **self._asked,
            "available": len(self._available),
            "registered": self.registered,
            "dispatcher": self._dispatcher,
            "calls": dict(self._library.calls()),  # a copy: the worker counts on
            "started": self._started,
            "written": time.time(),
            "ended": False,
        }

    def _kernels(self) -> dict[str, str]:
        """Where each dispatcher entry's kernel for the backend was registered, as torch prints it."""
        entries = {at for entries in self._available.values() for at in entries}
        return {at: _kernel(at, self._library.BACKEND) for at in sorted(entries)}


class SwitchesOperators:
    """Base of a worker with an operator library."""

    operators: Operators | None = None

    def load_model(self, *arguments: Any, **options: Any) -> Any:
        with self._during("loading"):
            return super().load_model(*arguments, **options)  # type: ignore[misc]

    def execute_model(self, *arguments: Any, **options: Any) -> Any:
        with self._during("serving"):
            return super().execute_model(*arguments, **options)  # type: ignore[misc]

    def sample_tokens(self, *arguments: Any, **options: Any) -> Any:
        with self._during("serving"):
            return super().sample_tokens(*arguments, **options)  # type: ignore[misc]

    def _during(self, phase: str) -> contextlib.AbstractContextManager[None]:
        return self.operators.during(phase) if self.operators else contextlib.nullcontext()

    def switch_operators(self, include: str, exclude: str) -> dict[str, Any]:
        """Other operators without a restart, and the evidence then. Texts, as vLLM's collective_rpc passes them."""
        if self.operators is None:
            raise OperatorError("no operator library is loaded: FLAGRELEASE_OPERATORS is not set")
        self.operators.switch(_listed(include), _listed(exclude), may_be_none=True)
        return self.operators.evidence()


def _kernel(entry: str, backend: str) -> str:
    import torch  # only here: a library that replaces nothing in the dispatcher needs none

    table: str = torch._C._dispatch_dump_table(entry)
    lines = (line.partition(": ") for line in table.splitlines())
    return next((where for key, _, where in lines if key == backend), "")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _write_whole(path: Path, text: str) -> None:
    """By rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, "utf-8")
    unfinished.replace(path)
