"""build: base → runtime → model, each looked up in the registry under its key and built only when it is not there."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.cell import Cell
from pipeline.errors import WorldError
from pipeline.keys import key_of
from pipeline.layers import (
    base_parts,
    model_context,
    model_parts,
    refuse_edited_lock,
    refuse_unlocked,
    runtime_context,
    runtime_parts,
)
from pipeline.limits import BUILD, PUSH
from pipeline.lock import Lock, base_repository, lock_files
from pipeline.names import Layer, Names, labels
from pipeline.results import BuildResult, BuiltImage
from pipeline.world.context import host_files, proxy_arguments, write_context
from pipeline.world.debian import bootstrap
from pipeline.world.engine import Engine, LocalImage
from pipeline.world.host_lock import host_lock
from pipeline.world.index_relay import indexes_for_build
from pipeline.world.push import Place, push
from pipeline.world.registry import Registry
from pipeline.world.scratch import scratch_folder

GIB = 1024**3


def _at_once(_resource: str) -> AbstractContextManager[float]:
    return nullcontext(0.0)


class Log(Protocol):
    """Where a stage's lines go: a file, and a progress line on a terminal."""

    path: Path

    def progress(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Builder:
    """What a build needs besides the cell."""

    engine: Engine
    registry: Registry
    names: Names
    revision: str  # git commit of this project
    created: str  # RFC 3339
    log: Log
    # Has a resource of the host for a time, and says how many seconds it waited for it.
    taking: Callable[[str], AbstractContextManager[float]] = _at_once


def build(cell: Cell, lock: Lock, files: Mapping[str, bytes], builder: Builder) -> BuildResult:
    """Raises StageRefusedError for a missing or stale pin or a failed step, WorldError when the disk is short."""
    refuse_unlocked(cell, lock)
    refuse_edited_lock(cell, lock, files)
    base = _base(cell, lock, builder)
    with indexes_for_build(cell.chip.indexes) as indexes:
        runtime = _image(
            "runtime",
            builder.names.staging_runtime,
            cell,
            builder,
            parts={**runtime_parts(cell, files), "base": str(base.manifest_digest)},
            parent=base,
            context=lambda: {
                **runtime_context(cell, files),
                **host_files(_locked(cell, files), indexes.extra, indexes.main),
            },
        )
    model = _image(
        "model",
        builder.names.staging_model,
        cell,
        builder,
        parts={**model_parts(cell, files), "runtime": str(runtime.manifest_digest)},
        parent=runtime,
        context=lambda: model_context(cell, files),
    )
    return BuildResult(images=(base, runtime, model), builder=builder.engine.builder)


def _locked(cell: Cell, files: Mapping[str, bytes]) -> bytes:
    return b"".join(files[path] for path in lock_files(cell.chip_id, cell.chip).values())


def _base(cell: Cell, lock: Lock, builder: Builder) -> BuiltImage:
    if cell.chip.base.image is not None:
        return _public_base(cell, lock, builder)
    repository, key = builder.names.staging_base, key_of(base_parts(cell, lock))
    return _once("base", repository, key, builder, lambda: _bootstrapped(cell, key, builder))


def _bootstrapped(cell: Cell, key: str, builder: Builder) -> LocalImage:
    _refuse_short_disk(cell, builder)
    builder.log.say(f"bootstrapping Debian {cell.chip.base.debian}")
    with scratch_folder() as folder:
        archive = folder / "base.tar"
        bootstrap(
            cell.chip.base,
            cell.chip.arch,
            archive,
            log=builder.log.path,
            on_line=builder.log.progress,
        )
        changes = [
            f'LABEL "{name}"="{value}"'
            for name, value in _labels(cell, "base", key, builder).items()
        ]
        tag = _tag(builder.names.staging_base, key, builder)
        return builder.engine.import_tree(archive, tag=tag, changes=['CMD ["bash"]', *changes])


def _public_base(cell: Cell, lock: Lock, builder: Builder) -> BuiltImage:
    """A public image, pulled by the digest of the lock; it keeps its own repository."""
    pin, started = lock.bases[cell.chip_id], time.monotonic()
    repository = base_repository(pin.reference)
    builder.log.say(f"pulling {repository}@{pin.digest}")
    image = builder.engine.pull(f"{repository}@{pin.digest}")
    return BuiltImage(
        layer="base",
        repository=repository,
        key=key_of(base_parts(cell, lock)),
        config_digest=image.config_digest,
        manifest_digest=str(pin.digest),
        size_bytes=image.size_bytes,
        stored_bytes=0,
        built=False,
        seconds=time.monotonic() - started,
    )


def _image(
    layer: Layer,
    repository: str,
    cell: Cell,
    builder: Builder,
    *,
    parts: Mapping[str, str],
    parent: BuiltImage,
    context: Callable[[], dict[str, bytes | Path]],
) -> BuiltImage:
    key = key_of({**parts, "builder": builder.engine.builder})

    def built() -> LocalImage:
        if (
            layer != "model"
        ):  # a few files on top: the room was asked for, and taken by what is under it
            _refuse_short_disk(cell, builder)
        builder.log.say(f"building the {layer} image")
        with tempfile.TemporaryFile(prefix="flagrelease-context-") as file:
            write_context(file, context())
            return builder.engine.build(
                file,
                tag=_tag(repository, key, builder),
                labels=_labels(cell, layer, key, builder),
                arguments={parent.layer.upper(): _pulled(parent, builder), **proxy_arguments()},
                on_line=builder.log.progress,
            )

    return _once(layer, repository, key, builder, built, parent)


def _once(
    layer: Layer,
    repository: str,
    key: str,
    builder: Builder,
    made: Callable[[], LocalImage],
    parent: BuiltImage | None = None,
) -> BuiltImage:
    """What the registry has under the key; else made and pushed, by one thread of one process on this host.

    Waiting is not counted as seconds of the image. The locks are few files, however many keys there are.
    """
    with host_lock(f"build {key[:2]}", builder.log.say):
        started = time.monotonic()
        found = _found(layer, repository, key, builder, started)
        if found:
            return found
        with builder.taking(BUILD) as waited_s:
            started += waited_s
            image = made()
        with builder.taking(PUSH) as waited_s:
            return _pushed(layer, repository, key, image, builder, started + waited_s, parent)


def _found(
    layer: Layer, repository: str, key: str, builder: Builder, started: float
) -> BuiltImage | None:
    digest = builder.registry.head(repository, f"b-{key}")
    if digest is None:
        return None
    builder.log.say(f"the {layer} image is in the registry under its key")
    reference = f"{builder.names.staging_host}/{repository}@{digest}"
    image = builder.engine.pull(reference) if layer == "model" else builder.engine.image(reference)
    return _described(layer, repository, key, digest, image, builder, built=False, started=started)


def _pushed(
    layer: Layer,
    repository: str,
    key: str,
    image: LocalImage,
    builder: Builder,
    started: float,
    parent: BuiltImage | None = None,
) -> BuiltImage:
    builder.log.say(f"pushing the {layer} image ({image.size_bytes / GIB:.2f} GiB unpacked)")
    pushed = push(
        builder.engine,
        builder.registry,
        image,
        Place(repository=repository, reference=f"b-{key}"),
        parent=_place(parent, builder) if parent else None,
        on_line=builder.log.progress,
    )
    digest = builder.registry.head(repository, f"b-{key}")
    if digest is None or (pushed and digest != pushed):
        raise WorldError(
            f"the registry holds {digest}, the engine pushed {pushed}",
            where=_tag(repository, key, builder),
            hint="somebody else writes this tag; run again",
        )
    return _described(layer, repository, key, digest, image, builder, built=True, started=started)


def _described(
    layer: Layer,
    repository: str,
    key: str,
    digest: str,
    image: LocalImage | None,
    builder: Builder,
    *,
    built: bool,
    started: float,
) -> BuiltImage:
    return BuiltImage(
        layer=layer,
        repository=repository,
        key=key,
        config_digest=builder.registry.config_digest(repository, digest),
        manifest_digest=digest,
        size_bytes=image.size_bytes if image else None,
        stored_bytes=builder.registry.stored_bytes(repository, digest),
        built=built,
        seconds=round(time.monotonic() - started, 2),
    )


def _labels(cell: Cell, layer: Layer, key: str, builder: Builder) -> dict[str, str]:
    return labels(cell, layer, key, revision=builder.revision, created=builder.created)


def _tag(repository: str, key: str, builder: Builder) -> str:
    return f"{builder.names.staging_host}/{repository}:b-{key}"


def _pulled(image: BuiltImage, builder: Builder) -> str:
    """The parent by digest. A public base keeps its own host; ours lie in staging."""
    host = f"{builder.names.staging_host}/" if _is_staged(image, builder) else ""
    return f"{host}{image.repository}@{image.manifest_digest}"


def _is_staged(image: BuiltImage, builder: Builder) -> bool:
    return image.repository.startswith(builder.names.staging_base.rpartition("/")[0])


def _place(image: BuiltImage, builder: Builder) -> Place | None:
    """In the registry that is pushed to; None of a public base on another host."""
    repository, host = image.repository, f"{builder.names.staging_host}/"
    if not (_is_staged(image, builder) or repository.startswith(host)):
        return None
    return Place(repository=repository.removeprefix(host), reference=str(image.manifest_digest))


def _refuse_short_disk(cell: Cell, builder: Builder) -> None:
    free, needed = builder.engine.free_bytes(), cell.chip.build_disk_gib * GIB
    if free is not None and free < needed:
        raise WorldError(
            f"{free / GIB:.1f} GiB are free where the engine keeps images, {needed / GIB:.0f} are needed",
            where=f"build of {cell.id}",
            hint="free some: docker image prune, or docker system df to see what is large",
        )
