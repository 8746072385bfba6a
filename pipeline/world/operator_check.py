"""What the workers found when they checked each operator against the CPU (docs/operators.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import TypeAdapter

from pipeline.errors import WorldError
from pipeline.results import Frozen
from pipeline.smoke_result import OperatorRow

CHECK = "FLAGRELEASE_OPERATORS_CHECK"  # variable of the workers' hook: folder of the files


class WrongCall(Frozen):
    """The smallest call of an operator whose result was wrong."""

    python: str
    phase: str
    elements: int  # of its tensors
    says: str


class CheckedOperator(Frozen):
    """One operator in one process. Counts go by phase: loading, between, serving."""

    calls: Mapping[str, int]
    checked: Mapping[str, int]
    wrong: Mapping[str, int]
    unchecked: Mapping[str, int]  # by reason
    failures: Mapping[str, int]  # of the check itself, by message
    absolute_error: float
    relative_error: float
    times_allowed: float
    says: str
    fastest_ms: float | None
    total_ms: float
    smallest_wrong: WrongCall | None

    @property
    def is_wrong(self) -> bool:
        return bool(self.wrong)

    def sentence(self, name: str) -> str:
        """`pow_scalar wrong (12 of 12 checked calls while loading, max error 3.1)`."""
        places = [
            f"{count} of {self.checked.get(phase, 0)} checked calls while {phase}"
            for phase, count in sorted(self.wrong.items())
        ]
        error = f"max error {self.absolute_error:.3g}; {self.says}"
        return f"{name} wrong ({', '.join(places)}, {error})"


class ProcessCheck(Frozen):
    check_schema: Literal[1]
    backend: str
    rank: int
    process: int
    seconds: Mapping[str, float]  # spent on checking, by phase
    outside_dispatcher: tuple[str, ...]  # on, but never seen: no reference
    operators: Mapping[str, CheckedOperator]


class OperatorCheck(Frozen):
    """Every process of one served stack."""

    schema_version: Literal[1] = 1
    cell: str
    stack: str
    image: str
    excluded: tuple[str, ...] = ()  # operators of the library that were off
    answer: str  # of the chat completion
    refused: str  # why the server never got ready or gave no answer; "" where it did
    processes: tuple[ProcessCheck, ...]

    @property
    def worst(self) -> tuple[tuple[str, CheckedOperator], ...]:
        """Operators that were wrong in some process, the worst first."""
        found: dict[str, CheckedOperator] = {}
        for process in self.processes:
            for name, seen in process.operators.items():
                if seen.is_wrong and (
                    name not in found or seen.times_allowed > found[name].times_allowed
                ):
                    found[name] = seen
        return tuple(sorted(found.items(), key=lambda pair: -pair[1].times_allowed))

    @property
    def wrong(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.worst)

    def smallest_call(self, names: Iterable[str]) -> str:
        """Python of the smallest wrong call of these operators; "" where none is known."""
        calls = [
            seen.smallest_wrong
            for name, seen in self.worst
            if name in set(names) and seen.smallest_wrong
        ]
        if not calls:
            return ""
        call = min(calls, key=lambda each: each.elements)
        return f"{call.python}\n# while {call.phase}: {call.says}"

    def rows(self) -> tuple[OperatorRow, ...]:
        """Operators that were called, over all processes, by name."""
        seen: dict[str, list[CheckedOperator]] = {}
        for process in self.processes:
            for name, operator in process.operators.items():
                if operator.calls:
                    seen.setdefault(name, []).append(operator)
        return tuple(_row(name, operators) for name, operators in sorted(seen.items()))

    def table(self) -> tuple[str, ...]:
        """A line for each operator that was called, wrong ones first; ms is the fastest checked call."""
        head = f"{'operator':32} {'calls':>8} {'checked':>8} {'wrong':>6} {'max error':>10} {'ms':>9}  not checked"
        rows = sorted(self.rows(), key=lambda row: (-row.wrong, row.name))
        return (head, *map(_line, rows))

    @property
    def summary(self) -> str:
        checked = [row for row in self.rows() if row.checked]
        calls, served = sum(row.checked for row in checked), sum(row.served for row in checked)
        failed = sum(sum(o.failures.values()) for p in self.processes for o in p.operators.values())
        more = f", {failed} calls could not be compared" if failed else ""
        compared = f"{len(checked)} operators checked in {calls} calls ({served} while serving)"
        return f"{compared}, {len(self.worst)} wrong{more}"

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end, and saw operators while a request was served."""
        return not self.refused and any(row.served for row in self.rows())

    @property
    def outside(self) -> tuple[str, ...]:
        return tuple(sorted({name for one in self.processes for name in one.outside_dispatcher}))

    def sentences(self) -> tuple[str, ...]:
        found = (self.summary, *(seen.sentence(name) for name, seen in self.worst))
        return tuple(f"operator check: {sentence}" for sentence in found)


def _row(name: str, seen: Sequence[CheckedOperator]) -> OperatorRow:
    times = [one.fastest_ms for one in seen if one.fastest_ms is not None]
    reasons = dict.fromkeys(reason for one in seen for reason in (*one.unchecked, *one.failures))
    return OperatorRow(
        name=name,
        calls=sum(sum(one.calls.values()) for one in seen),
        checked=sum(sum(one.checked.values()) for one in seen),
        served=sum(one.checked.get("serving", 0) for one in seen),
        wrong=sum(sum(one.wrong.values()) for one in seen),
        absolute_error=max(one.absolute_error for one in seen),
        of_allowed=max(one.times_allowed for one in seen),
        fastest_ms=min(times, default=None),
        unchecked="; ".join(reasons),
    )


def _line(row: OperatorRow) -> str:
    ms = "–" if row.fastest_ms is None else f"{row.fastest_ms:.3f}"
    counts = f"{row.calls:>8} {row.checked:>8} {row.wrong:>6}"
    return f"{row.name:32} {counts} {row.absolute_error:>10.3g} {ms:>9}  {row.unchecked}"


_ALL = TypeAdapter(tuple[ProcessCheck, ...])


def parse_check(text: str, *, where: str) -> tuple[ProcessCheck, ...]:
    try:
        return _ALL.validate_json(text)
    except ValueError as error:
        raise WorldError(
            "the workers' check of their operators cannot be read",
            where=where,
            details=str(error),
            hint="the image's images/serving/ is of another version than this pipeline",
        ) from error
