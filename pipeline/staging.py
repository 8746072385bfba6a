"""Images in the staging registry, each under its build key: what is there is not made again."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from pipeline.errors import WorldError
from pipeline.limits import BUILD, PUSH
from pipeline.names import Layer, Names
from pipeline.reporter import StageLog
from pipeline.results import BuiltImage
from pipeline.world.engine import Engine, LocalImage
from pipeline.world.host_lock import host_lock
from pipeline.world.push import Place, push
from pipeline.world.registry import Registry

GIB = 1024**3


def _at_once(_resource: str) -> AbstractContextManager[float]:
    return nullcontext(0.0)


@dataclass(frozen=True, kw_only=True)
class Builder:
    """What a build needs besides the cell."""

    engine: Engine
    registry: Registry
    names: Names
    revision: str  # git commit of this project
    created: str  # RFC 3339
    log: StageLog
    # Has a resource of the host for a time, and says how many seconds it waited for it.
    taking: Callable[[str], AbstractContextManager[float]] = _at_once


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """An image by what it is made of, and where in staging it lies once it is made."""

    layer: Layer
    repository: str
    key: str

    @property
    def tag(self) -> str:
        return f"b-{self.key}"


def staged(
    wanted: Wanted,
    builder: Builder,
    made: Callable[[], LocalImage],
    parent: BuiltImage | None = None,
) -> BuiltImage:
    """What the registry has under the key; else made and pushed, by one thread of one process on this host.

    Waiting is not counted as seconds of the image. The locks are few files, however many keys there are.
    """
    with host_lock(f"build {wanted.key[:2]}", builder.log.say):
        started = time.monotonic()
        found = _found(wanted, builder, started)
        if found:
            return found
        with builder.taking(BUILD) as waited_s:
            started += waited_s
            image = made()
        with builder.taking(PUSH) as waited_s:
            return _pushed(wanted, image, builder, started + waited_s, parent)


def _found(wanted: Wanted, builder: Builder, started: float) -> BuiltImage | None:
    layer, repository = wanted.layer, wanted.repository
    digest = builder.registry.head(repository, wanted.tag)
    if digest is None:
        return None
    builder.log.say(f"the {layer} image is in the registry under its key")
    reference = f"{builder.names.staging_host}/{repository}@{digest}"
    image = builder.engine.pull(reference) if layer == "model" else builder.engine.image(reference)
    return _described(wanted, digest, image, builder, built=False, started=started)


def _pushed(
    wanted: Wanted,
    image: LocalImage,
    builder: Builder,
    started: float,
    parent: BuiltImage | None,
) -> BuiltImage:
    builder.log.say(f"pushing the {wanted.layer} image ({image.size_bytes / GIB:.2f} GiB unpacked)")
    pushed = push(
        builder.engine,
        builder.registry,
        image,
        Place(repository=wanted.repository, reference=wanted.tag),
        parent=place_of(parent, builder) if parent else None,
        on_line=builder.log.progress,
    )
    digest = builder.registry.head(wanted.repository, wanted.tag)
    if digest is None or (pushed and digest != pushed):
        raise WorldError(
            f"the registry holds {digest}, the engine pushed {pushed}",
            where=reference_of(wanted, builder),
            hint="somebody else writes this tag; run again",
        )
    return _described(wanted, digest, image, builder, built=True, started=started)


def _described(
    wanted: Wanted,
    digest: str,
    image: LocalImage | None,
    builder: Builder,
    *,
    built: bool,
    started: float,
) -> BuiltImage:
    return BuiltImage(
        layer=wanted.layer,
        repository=wanted.repository,
        key=wanted.key,
        config_digest=builder.registry.config_digest(wanted.repository, digest),
        manifest_digest=digest,
        size_bytes=image.size_bytes if image else None,
        stored_bytes=builder.registry.stored_bytes(wanted.repository, digest),
        built=built,
        seconds=round(time.monotonic() - started, 2),
    )


def reference_of(wanted: Wanted, builder: Builder) -> str:
    """By its tag, which is its key."""
    return f"{builder.names.staging_host}/{wanted.repository}:{wanted.tag}"


def pinned(image: BuiltImage, builder: Builder) -> str:
    """By digest. A public base keeps its own host; ours lie in staging."""
    host = f"{builder.names.staging_host}/" if _is_staged(image, builder) else ""
    return f"{host}{image.repository}@{image.manifest_digest}"


def _is_staged(image: BuiltImage, builder: Builder) -> bool:
    return image.repository.startswith(builder.names.staging_base.rpartition("/")[0])


def place_of(image: BuiltImage, builder: Builder) -> Place | None:
    """In the registry that is pushed to; None of a public base on another host."""
    repository, host = image.repository, f"{builder.names.staging_host}/"
    if not (_is_staged(image, builder) or repository.startswith(host)):
        return None
    return Place(repository=repository.removeprefix(host), reference=str(image.manifest_digest))
