"""Every operator of the library against the CPU, on what a served model really gives it: while loading and serving.

Only where FLAGRELEASE_OPERATORS_CHECK names a folder, which a release never has. Each kernel is wrapped as the library
registers it, so that calls from inside torch's own composite operators are seen too, and the library gets the arguments
that it always gets. The wrapper copies the inputs, lets the library compute, and computes the same on the CPU. While it
copies or computes, all wrapped kernels lead to what the library replaced: a library that replaces `copy_` or `_to_copy`
wrongly can neither spoil the reference nor hide. One JSON file a process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from flagrelease_serving import operator_reference as reference
from flagrelease_serving.operator_reference import Difference

logger = logging.getLogger("vllm.flagrelease")
SCHEMA = 1
CHECKS_PER_SHAPE = 3  # calls with the same shapes, dtypes, strides and scalars
CHECKS_PER_OPERATOR = 40  # in each phase
LARGEST_ELEMENTS = 64_000_000  # of one tensor; larger ones are not checked, and said so
BUDGET_S = {"loading": 60.0, "between": 15.0, "serving": 60.0}  # spent on checking in each phase
WRITE_EVERY_S = 5.0
UNINITIALISED = ("empty", "new_empty", "resize", "set_")
RANDOM = (
    "rand",
    "normal",
    "bernoulli",
    "multinomial",
    "exponential",
    "uniform",
    "dropout",
    "native_dropout",
)


class Account:
    """What was seen of one operator."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()  # by phase
        self.checked: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.unchecked: Counter[str] = Counter()  # by reason
        self.failures: Counter[str] = Counter()  # of the check itself, by message
        self.shapes: Counter[tuple[str, ...]] = Counter()
        self.worst = Difference()
        self.milliseconds: list[float] = []
        self.smallest_wrong: dict[str, Any] = {}

    def as_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "checked": self.checked,
            "wrong": self.wrong,
            "unchecked": self.unchecked,
            "failures": self.failures,
            "absolute_error": self.worst.absolute,
            "relative_error": self.worst.relative,
            "times_allowed": self.worst.excess,
            "says": self.worst.says,
            "fastest_ms": min(self.milliseconds, default=None),
            "total_ms": sum(self.milliseconds),
            "smallest_wrong": self.smallest_wrong or None,
        }


class OperatorCheck:
    """The wrappers of the library's kernels, and what they saw."""

    def __init__(
        self, backend: str, available: Mapping[str, Sequence[str]], folder: Path, *, rank: int
    ) -> None:
        """Before the library is switched on: what it replaces is taken hold of here."""
        self._backend = backend
        self._rank = rank
        self._path = folder / f"check-rank{rank}.{os.getpid()}.json"
        self._names = {entry: name for name, entries in available.items() for entry in entries}
        self._replaced = {entry: _kernel(entry, backend) for entry in self._names}
        self._watched: set[str] = set()
        self._accounts: dict[str, Account] = {}
        self._phase = "between"
        self._spent = dict.fromkeys(BUDGET_S, 0.0)
        self._local = threading.local()
        self._lock = threading.RLock()
        self._written = 0.0
        self._outside: tuple[str, ...] = ()
        if backend != "CPU":
            # vLLM leaves a GPU's worker one thread, which would make the references slow.
            torch.set_num_threads(min(os.cpu_count() or 1, 16))

    @contextlib.contextmanager
    def wrapping(self) -> Iterator[None]:
        """The kernels that a library registers for the backend in here are watched."""
        register = torch.library.Library.impl
        self._watched.clear()

        def impl(library: Any, name: Any, kernel: Any, key: Any = "", **options: Any) -> Any:
            entry = name._name if isinstance(name, torch._ops.OpOverload) else str(name)
            entry = entry if "::" in entry else f"{library.ns}::{entry}"
            is_ours = (key or library.dispatch_key) == self._backend and entry in self._names
            # FlagGems registers a few for schemas that this torch does not have: nothing ever calls them.
            if is_ours and _operator(entry) is not None:
                kernel = self._wrapped(entry, kernel, takes_keys=options.pop("with_keyset", False))
                options["with_keyset"] = True
                self._watched.add(entry)
            return register(library, name, kernel, key, **options)

        torch.library.Library.impl = impl
        try:
            yield
        finally:
            torch.library.Library.impl = register

    def watch(self, on: Mapping[str, Sequence[str]]) -> None:
        """The operators that are on now, with their entries."""
        for name in on:
            self._accounts.setdefault(name, Account())
        self._outside = tuple(
            sorted(name for name, entries in on.items() if not self._watched.intersection(entries))
        )
        logger.info("operator check: %d kernels are watched", len(self._watched))
        self.write()

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        before, self._phase = self._phase, phase
        try:
            yield
        finally:
            self._phase = before
            self.write()

    def _wrapped(self, entry: str, kernel: Any, *, takes_keys: bool) -> Any:
        operator = _operator(entry)
        replaced, skipped = self._replaced[entry], _not_comparable(operator)
        account = self._accounts.setdefault(self._names[entry], Account())
        numbered = _tensors_of(operator)

        def checked(keys: Any, *arguments: Any, **options: Any) -> Any:
            def call() -> Any:
                return (
                    kernel(keys, *arguments, **options)
                    if takes_keys
                    else kernel(*arguments, **options)
                )

            if not getattr(self._local, "is_checking", False):
                return self._seen(operator, account, skipped, call, arguments, options)
            if replaced is None:
                raise NotImplementedError(
                    f"{entry} has no kernel for {self._backend} beside the library's"
                )
            # torch hands a number that it had wrapped into a tensor to Python as a number again.
            given = (
                _as_tensor(each) if at in numbered else each for at, each in enumerate(arguments)
            )
            return replaced.call_boxed(keys, *given, **options)

        return checked

    def _seen(
        self,
        operator: Any,
        account: Account,
        skipped: str,
        call: Callable[[], Any],
        arguments: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        phase = self._phase
        account.calls[phase] += 1
        why = skipped or self._why_not(account, phase, arguments, options)
        if why:
            account.unchecked[why] += 1
            return call()
        with self._aside(account, phase):
            inputs = reference.copied((arguments, options))
            inputs = (inputs[0], inputs[1])
            self._wait()
        # A failure of the copy is counted, and the call goes on without a check.
        if not (ready := getattr(self._local, "succeeded", False)):
            return call()
        others, started = sum(self._spent.values()), time.monotonic()
        result = call()  # an error of the library's own is the worker's
        with self._aside(account, phase):
            self._wait()
            # Without what checks of other operators, called inside, have taken.
            seconds = time.monotonic() - started - (sum(self._spent.values()) - others)
            account.milliseconds.append(max(seconds, 0.0) * 1000)
            if ready:
                self._check(operator, account, phase, inputs, result, (arguments, options))
        return result

    def _why_not(
        self, account: Account, phase: str, arguments: Sequence[Any], options: Mapping[str, Any]
    ) -> str:
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return "captured into a graph"
        if self._spent[phase] > BUDGET_S[phase]:
            return f"the time for checks while {phase} was spent"
        if account.checked[phase] >= CHECKS_PER_OPERATOR:
            return "checked often enough"
        given = reference.tensors((list(arguments), dict(options)))
        if any(tensor.numel() > LARGEST_ELEMENTS for tensor in given):
            return f"a tensor of more than {LARGEST_ELEMENTS} elements"
        if any(tensor.is_sparse or tensor.is_quantized or tensor.is_meta for tensor in given):
            return "a tensor without plain elements"
        shape = (phase, *reference.shapes(arguments, options))
        if account.shapes[shape] >= CHECKS_PER_SHAPE:
            return "checked often enough"
        account.shapes[shape] += 1
        return ""

    @contextlib.contextmanager
    def _aside(self, account: Account, phase: str) -> Iterator[None]:
        """The library is out of the way; an error in here is counted, and never the worker's."""
        started, self._local.succeeded = time.monotonic(), False
        self._local.is_checking = True
        try:
            # A default device or dtype of the model's loader must not reach the reference.
            with torch._C.DisableTorchFunction(), torch.no_grad():
                yield
            self._local.succeeded = True
        except NotImplementedError:
            account.unchecked["no reference: the CPU has no such operator"] += 1
        except Exception as error:  # noqa: BLE001 -- see above
            account.failures[_message(error)] += 1
        finally:
            self._local.is_checking = False
            self._spent[phase] += time.monotonic() - started

    def _check(
        self, operator: Any, account: Account, phase: str, inputs: Any, result: Any, given: Any
    ) -> None:
        changed = reference.changed(operator, *given)
        results = _distinct([*changed, *reference.results(result)])
        if any(tensor.numel() > LARGEST_ELEMENTS for tensor in results):
            account.unchecked[f"a tensor of more than {LARGEST_ELEMENTS} elements"] += 1
            return
        if why := reference.undefined(operator, inputs[0], inputs[1]):
            account.unchecked[why] += 1
            return
        arguments, options = reference.widened(operator, inputs)
        if "device" in options or _names_device(operator):
            options["device"] = torch.device("cpu")
        answer = operator(*arguments, **options)
        expected = _distinct(
            [*reference.changed(operator, arguments, options), *reference.results(answer)]
        )
        got = reference.copied(results)
        found = reference.compare(operator, inputs[0], inputs[1], got, expected)
        account.checked[phase] += 1
        if (found.is_wrong, found.excess) >= (account.worst.is_wrong, account.worst.excess):
            account.worst = found
        if found.is_wrong:
            account.wrong[phase] += 1
            self._keep_smallest(operator, account, phase, inputs, found)
        if time.monotonic() - self._written > WRITE_EVERY_S:
            self.write()

    def _keep_smallest(
        self, operator: Any, account: Account, phase: str, inputs: Any, found: Difference
    ) -> None:
        elements = sum(tensor.numel() for tensor in reference.tensors(inputs))
        if account.smallest_wrong and elements >= account.smallest_wrong["elements"]:
            return
        device = "cuda" if self._backend == "CUDA" else self._backend.lower()
        account.smallest_wrong = {
            "python": reference.written(operator, inputs[0], inputs[1], device),
            "phase": phase,
            "elements": elements,
            "says": found.says,
        }

    def _wait(self) -> None:
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()

    def write(self) -> None:
        with self._lock:
            self._written = time.monotonic()
            found = {
                "check_schema": SCHEMA,
                "backend": self._backend,
                "rank": self._rank,
                "process": os.getpid(),
                "seconds": dict(self._spent),
                "outside_dispatcher": self._outside,
                "operators": {name: seen.as_json() for name, seen in self._accounts.items()},
            }
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = self._path.with_suffix(".unfinished")
                unfinished.write_text(json.dumps(_finite(found), indent=1, sort_keys=True), "utf-8")
                unfinished.replace(self._path)
            except OSError as error:
                logger.warning("operator check: %s", error)


def _kernel(entry: str, backend: str) -> Any:
    try:
        return torch.library.get_kernel(entry, backend)
    except RuntimeError:
        return None  # the backend has none of its own


def _operator(entry: str) -> Any:
    """As torch.ops has it; None where there is none of that name."""
    namespace, _, rest = entry.partition("::")
    packet, _, overload = rest.partition(".")
    found = getattr(getattr(torch.ops, namespace), packet, None)
    return getattr(found, overload or "default", None)


def _tensors_of(operator: Any) -> tuple[int, ...]:
    """Where the operator takes tensors."""
    taken = enumerate(operator._schema.arguments)
    return tuple(
        at for at, argument in taken if str(argument.type) in ("Tensor", "Optional[Tensor]")
    )


def _as_tensor(value: Any) -> Any:
    if not isinstance(value, (bool, int, float)):
        return value
    dtype = {bool: torch.bool, int: torch.int64, float: torch.float32}[type(value)]
    return torch.tensor(value, dtype=dtype, device="cpu")


def _not_comparable(operator: Any) -> str:
    name = operator._schema.name.partition("::")[2].lstrip("_")
    if torch.Tag.nondeterministic_seeded in operator.tags or name.startswith(RANDOM):
        return "random"
    return "uninitialised memory" if name.startswith(UNINITIALISED) else ""


def _names_device(operator: Any) -> bool:
    return any(
        argument.name == "device" and argument.kwarg_only for argument in operator._schema.arguments
    )


def _distinct(found: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """A result that is also a changed argument counts once."""
    return list({id(tensor): tensor for tensor in found}.values())


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"[
        :200
    ]


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if abs(value) < 1e300 else 1e300
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, (list, tuple)) else value
