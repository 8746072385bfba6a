"""build on a node without network: its own root file system, the wheels carried to it, the same thin model layer.

No registry takes part: the images stay in the node's engine, under their keys, and are named by config digest.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.canonical import canonical, sha256_bytes, sha256_file
from pipeline.cell import Cell
from pipeline.errors import StageRefusedError
from pipeline.keys import key_of
from pipeline.layers import (
    model_context,
    model_parts,
    refuse_edited_lock,
    refuse_unlocked,
    runtime_context,
    runtime_parts,
)
from pipeline.lock import Lock
from pipeline.names import Layer, Names, labels
from pipeline.reporter import StageLog
from pipeline.results import BuildResult, BuiltImage
from pipeline.world.context import write_context
from pipeline.world.engine import Engine, LocalImage

BASE = "flagrelease/node-base:latest"  # imported by node/start


@dataclass(frozen=True, kw_only=True)
class NodeBuilder:
    engine: Engine
    wheels: Path  # as they were carried
    repositories: Names
    revision: str
    created: str
    log: StageLog


def build_on_node(
    cell: Cell, lock: Lock, files: Mapping[str, bytes], builder: NodeBuilder
) -> BuildResult:
    """Raises StageRefusedError where node/start did not prepare this node, or a step fails."""
    refuse_unlocked(cell, lock)
    refuse_edited_lock(cell, lock, files)
    base, wheels = _base(cell, builder), _wheels(cell, builder)
    runtime = _image(
        "runtime",
        cell,
        builder,
        parts={
            **runtime_parts(cell, files),
            "base": base.config_digest,
            "wheels": sha256_bytes(canonical({w.name: sha256_file(w) for w in wheels})),
        },
        arguments={"BASE": base.config_digest},
        context={**runtime_context(cell, files), **{f"wheels/{w.name}": w for w in wheels}},
    )
    model = _image(
        "model",
        cell,
        builder,
        parts={**model_parts(cell, files), "runtime": runtime.config_digest},
        arguments={"RUNTIME": runtime.config_digest},
        context=model_context(cell, files),
    )
    return BuildResult(images=(base, runtime, model), builder=builder.engine.builder)


def _base(cell: Cell, builder: NodeBuilder) -> BuiltImage:
    started = time.monotonic()
    image = builder.engine.image(BASE)
    if image is None:
        raise StageRefusedError(
            "the engine has no image of this node's own system",
            where=f"build of {cell.id}",
            hint="run node/start prepare, which imports it",
        )
    return _built("base", "flagrelease/node-base", "", image, started, built=False)


def _wheels(cell: Cell, builder: NodeBuilder) -> list[Path]:
    found = sorted(builder.wheels.glob("*.whl"))
    if not found:
        raise StageRefusedError(
            "no wheels were carried to this node",
            where=str(builder.wheels),
            hint=f"nox -s bundle -- {cell.chip_id} {cell.model_id}, then node/start receive here",
        )
    return found


def _image(
    layer: Layer,
    cell: Cell,
    builder: NodeBuilder,
    *,
    parts: Mapping[str, str],
    arguments: Mapping[str, str],
    context: Mapping[str, bytes | Path],
) -> BuiltImage:
    started = time.monotonic()
    names = builder.repositories
    repository = names.staging_runtime if layer == "runtime" else names.staging_model
    key = key_of({**parts, "builder": builder.engine.builder})
    tag = f"{repository}:b-{key}"
    image = builder.engine.image(tag)
    if image is not None:
        builder.log.say(f"the {layer} image is in the engine under its key")
        return _built(layer, repository, key, image, started, built=False)
    builder.log.say(f"building the {layer} image")
    with tempfile.TemporaryFile(prefix="flagrelease-context-") as file:
        write_context(file, context)
        image = builder.engine.build(
            file,
            tag=tag,
            labels=labels(cell, layer, key, revision=builder.revision, created=builder.created),
            arguments=arguments,
            on_line=builder.log.progress,
        )
    return _built(layer, repository, key, image, started, built=True)


def _built(
    layer: Layer, repository: str, key: str, image: LocalImage, started: float, *, built: bool
) -> BuiltImage:
    return BuiltImage(
        layer=layer,
        repository=repository,
        key=key,
        config_digest=image.config_digest,
        manifest_digest=None,
        size_bytes=image.size_bytes,
        stored_bytes=0,
        built=built,
        seconds=round(time.monotonic() - started, 2),
    )
