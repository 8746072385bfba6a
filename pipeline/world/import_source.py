"""The sidecar of a result file, held to the file and to what the cell's stacks are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.benchmark import ResultFormat
from pipeline.canonical import sha256_file
from pipeline.matrix_values import ServeValue
from pipeline.result_source import ResultSource
from pipeline.world.result_files import held_to, json_document

SUFFIX = ".source.json"
EXPECTED = "the source of a result file (docs/evaluators.md, Imported)"
UNSTATED = "(not stated)"


@dataclass(frozen=True, kw_only=True)
class ServedStack:
    """What a stack of the cell is in this release."""

    name: str
    digests: tuple[str, ...]  # of its image: config and manifest
    weights_sha256: str
    serve: Mapping[str, ServeValue]


def read_source(result: Path) -> ResultSource | None:
    """None without a sidecar. Raises WorldError for one that is half or of another form."""
    path = result.with_name(result.name + SUFFIX)
    if not path.exists():
        return None
    return held_to(ResultSource, json_document(path, EXPECTED), str(path), EXPECTED)


def doubts(
    result: Path,
    shown: str,
    source: ResultSource | None,
    stack: ServedStack,
    harness: ResultFormat,
) -> Iterator[str]:
    """Why nobody can say that this stack gave these answers; `shown` names the file for people."""
    if source is None:
        yield f"{shown} has no {SUFFIX[1:]} beside it, so nobody knows what answered"
        return
    if (found := sha256_file(result)) != source.result_sha256:
        yield f"{shown} is another file than its source is said of (SHA-256 {found})"
    if source.image not in stack.digests:
        yield f"{shown} is of image {source.image}, this release's is {' or '.join(stack.digests)}"
    for what, stated, wanted in (
        ("harness", source.harness, harness),
        ("stack", source.stack, stack.name),
        ("weights", source.weights_sha256, stack.weights_sha256),
    ):
        if stated != wanted:
            yield f"{shown} is of {what} {stated}, expected {wanted}"
    for name in sorted({*source.serve, *stack.serve}):
        stated, wanted = (str(one.get(name, UNSTATED)) for one in (source.serve, stack.serve))
        if stated != wanted:
            yield f"{shown} is of a server with {name} {stated}, the stack has {wanted}"
