"""Whether each stack ran with the operators that the matrix gives it: each fault makes the verdict invalid."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from pipeline.operator_evidence import AskedOperators, OperatorState, StackOperators

NAMED = 5
SERVER_LOG = "look for `operators on` and OperatorError in the server's log, then run nox -s accuracy with --again"


def operator_faults(
    operators: Mapping[str, StackOperators] | None, stacks: tuple[str, str]
) -> Iterator[str]:
    """`operators` by stack; None: rows of a time when nobody looked, which are judged without."""
    if operators is None:
        return
    for stack in dict.fromkeys(stacks):
        seen = operators.get(stack)
        if seen is None:
            yield f"{stack}: nobody looked which operators it ran with; run nox -s accuracy with --again"
        elif seen.asked is None:
            yield from _surplus_faults(stack, seen)
        else:
            yield from _faults(stack, seen, seen.asked)


def _surplus_faults(stack: str, seen: StackOperators) -> Iterator[str]:
    for library in sorted({state.library for state in seen.states}):
        yield (
            f"{stack} has no operator library in the matrix, but its workers loaded {library}; "
            "look for FLAGRELEASE_OPERATORS in the image's and the chip's variables"
        )


def _faults(stack: str, seen: StackOperators, asked: AskedOperators) -> Iterator[str]:
    if seen.looks == 0 or not seen.states:
        yield (
            f"{stack} is to run {asked.library}, but no worker left evidence that it was loaded; "
            "the stack needs a worker_cls of flagrelease_serving (docs/operators.md)"
        )
        return
    if seen.silent:
        yield (
            f"{stack} left no evidence of {asked.library} after {seen.silent} of {seen.looks} runs; "
            f"{SERVER_LOG}"
        )
    if not any(state.registered for state in seen.states):
        yield f"{stack}: no worker has an operator of {asked.library} on; {SERVER_LOG}"
        return
    if len(seen.states) > 1:
        on = " and ".join(f"{len(s.registered)} in {s.processes}" for s in seen.states)
        yield f"{stack}: its workers do not have the same operators on ({on}); {SERVER_LOG}"
    for state in seen.states:
        yield from _differences(stack, state, asked)
    if not seen.ran:
        yield (
            f"{stack}: {len(seen.registered)} operators of {asked.library} are on and none of them ran; "
            "something else computes (a compiled graph, fused kernels): see `serve` of the stack"
        )
    elif seen.idle:
        yield (
            f"{stack}: no operator of {asked.library} ran in {seen.idle} of {seen.processes} workers; "
            f"{SERVER_LOG}"
        )


def _differences(stack: str, state: OperatorState, asked: AskedOperators) -> Iterator[str]:
    """The library's own names of all operators are not here, only how many it has."""
    on = set(state.registered)
    if state.library != asked.library:
        yield f"{stack} is to run {asked.library}, but a worker loaded {state.library}; {SERVER_LOG}"
        return
    if surplus := on & set(asked.exclude):
        yield f"{stack}: {_named(surplus)} on, but excluded in the matrix; {SERVER_LOG}"
    if asked.include:
        if missing := set(asked.include) - on:
            yield f"{stack}: {_named(missing)} not on, but included in the matrix; {SERVER_LOG}"
        if surplus := on - set(asked.include):
            yield f"{stack}: {_named(surplus)} on, but not included in the matrix; {SERVER_LOG}"
    elif (wanted := state.available - len(asked.exclude)) != len(on):
        yield (
            f"{stack}: {len(on)} operators are on, but {asked.library} has {state.available} and the matrix "
            f"excludes {len(asked.exclude)}, which leaves {wanted}; {SERVER_LOG}"
        )


def _named(operators: Collection[str]) -> str:
    shown = ", ".join(sorted(operators)[:NAMED]) + (", …" if len(operators) > NAMED else "")
    return f"{shown} {'is' if len(operators) == 1 else 'are'}"
