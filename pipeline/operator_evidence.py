"""What was seen of the operator library of a stack, and what the matrix asks of it (docs/operators.md). Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AskedOperators(_Frozen):
    """What the matrix says of a stack that has a library: only `include`, or all but `exclude`."""

    library: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def of(self, available: Iterable[str]) -> frozenset[str]:
        """Those of a library's operators that are to be on."""
        return frozenset(self.include or set(available) - set(self.exclude))


class OperatorProcess(_Frozen):
    """One process of a served stack, as it last wrote of itself."""

    library: str
    rank: int
    process: int
    started: float  # seconds since 1970; with rank and process it names the process
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    available: int  # operators that the library has
    registered: tuple[str, ...]  # those that are on
    calls: Mapping[str, int]  # of what has run in this process


class OperatorState(_Frozen):
    """What was on, and in how many processes."""

    library: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    available: int
    registered: tuple[str, ...]
    processes: int


class StackOperators(_Frozen):
    """The operators of one stack, over every time that its answers were looked into."""

    asked: AskedOperators | None  # None: the stack has no library
    states: tuple[OperatorState, ...] = ()  # one, where all processes agree
    calls: Mapping[str, int] = {}  # by operator, over all processes
    idle: int = 0  # processes in which no operator ran
    looks: int = 0  # one after each run of the items
    silent: int = 0  # looks that found no evidence

    @property
    def processes(self) -> int:
        return sum(state.processes for state in self.states)

    @property
    def registered(self) -> tuple[str, ...]:
        return self.states[0].registered if self.states else ()

    @property
    def ran(self) -> tuple[str, ...]:
        """Under the names that the library counts by."""
        return ran(self.calls)


State = tuple[str, tuple[str, ...], tuple[str, ...], int, tuple[str, ...]]
Look = tuple[OperatorProcess, ...]  # every process of a stack at one moment


def ran(calls: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(name for name, count in calls.items() if count > 0))


def total_calls(processes: Iterable[OperatorProcess]) -> dict[str, int]:
    """Calls by operator, over all processes."""
    return dict(sum((Counter(process.calls) for process in processes), Counter[str]()))


def stack_operators(asked: AskedOperators | None, looks: Sequence[Look]) -> StackOperators:
    """What the looks saw together. Of a process that was seen more than once its largest counts, the last ones."""
    seen = sorted((p for look in looks for p in look), key=lambda p: sum(p.calls.values()))
    processes = {(p.rank, p.process, p.started): p for p in seen}.values()
    # A process whose operators were others for a while counts under both.
    states = Counter(
        state for _, state in {((p.rank, p.process, p.started), _state(p)) for p in seen}
    )
    return StackOperators(
        asked=asked,
        states=tuple(
            OperatorState(
                library=library,
                include=include,
                exclude=exclude,
                available=available,
                registered=registered,
                processes=count,
            )
            for (library, include, exclude, available, registered), count in sorted(states.items())
        ),
        calls=total_calls(processes),
        idle=sum(1 for p in processes if not ran(p.calls)),
        looks=len(looks),
        silent=sum(1 for look in looks if not look),
    )


def _state(p: OperatorProcess) -> State:
    listed = (tuple(sorted(names)) for names in (p.include, p.exclude, p.registered))
    include, exclude, registered = listed
    return p.library, include, exclude, p.available, registered


def together(one: StackOperators, other: StackOperators) -> StackOperators:
    """Two servings of a stack, none of which saw a process of the other."""
    states: Counter[OperatorState] = Counter()
    for state in (*one.states, *other.states):
        states[state.model_copy(update={"processes": 0})] += state.processes
    return StackOperators(
        asked=other.asked,
        states=tuple(s.model_copy(update={"processes": n}) for s, n in states.items()),
        calls=dict(Counter(one.calls) + Counter(other.calls)),
        idle=one.idle + other.idle,
        looks=one.looks + other.looks,
        silent=one.silent + other.silent,
    )
