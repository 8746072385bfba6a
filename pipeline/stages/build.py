"""build: base → runtime → model, each looked up in the registry under its key and built only when it is not there."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

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
from pipeline.lock import Lock, base_repository, lock_files
from pipeline.names import Layer, labels
from pipeline.results import BuildResult, BuiltImage
from pipeline.staging import GIB, Builder, Wanted, pinned, reference_of, staged
from pipeline.world.context import host_files, proxy_arguments, write_context
from pipeline.world.debian import bootstrap
from pipeline.world.engine import LocalImage
from pipeline.world.index_relay import indexes_for_build
from pipeline.world.scratch import scratch_folder


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
    key = key_of(base_parts(cell, lock))
    wanted = Wanted(layer="base", repository=builder.names.staging_base, key=key)
    return staged(wanted, builder, lambda: _bootstrapped(cell, wanted, builder))


def _bootstrapped(cell: Cell, wanted: Wanted, builder: Builder) -> LocalImage:
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
            f'LABEL "{name}"="{value}"' for name, value in _labels(cell, wanted, builder).items()
        ]
        return builder.engine.import_tree(
            archive, tag=reference_of(wanted, builder), changes=['CMD ["bash"]', *changes]
        )


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
    wanted = Wanted(layer=layer, repository=repository, key=key)

    def built() -> LocalImage:
        # A model's are a few files on top: the room was asked for, and taken by what is under them.
        if layer != "model":
            _refuse_short_disk(cell, builder)
        builder.log.say(f"building the {layer} image")
        with tempfile.TemporaryFile(prefix="flagrelease-context-") as file:
            write_context(file, context())
            return builder.engine.build(
                file,
                tag=reference_of(wanted, builder),
                labels=_labels(cell, wanted, builder),
                arguments={parent.layer.upper(): pinned(parent, builder), **proxy_arguments()},
                on_line=builder.log.progress,
            )

    return staged(wanted, builder, built, parent)


def _labels(cell: Cell, wanted: Wanted, builder: Builder) -> dict[str, str]:
    revision, created = builder.revision, builder.created
    return labels(cell, wanted.layer, wanted.key, revision=revision, created=created)


def _refuse_short_disk(cell: Cell, builder: Builder) -> None:
    free, needed = builder.engine.free_bytes(), cell.chip.build_disk_gib * GIB
    if free is not None and free < needed:
        raise WorldError(
            f"{free / GIB:.1f} GiB are free where the engine keeps images, {needed / GIB:.0f} are needed",
            where=f"build of {cell.id}",
            hint="free some: docker image prune, or docker system df to see what is large",
        )
