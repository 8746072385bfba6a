"""Images as the files of a docker-registry, which that program serves as they are: for places none can be pushed to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from pipeline.errors import WorldError
from pipeline.world.oci import Manifest, qualified
from pipeline.world.registry import Registry

ROOT = PurePosixPath("docker/registry/v2")


def registry_files(
    registry: Registry, tagged: Iterable[tuple[str, str]], cache: Path
) -> Iterator[tuple[str, bytes | Path]]:
    """Path under the registry's root folder, and content, of everything that (repository, tag) pairs need.

    Layers are kept in the cache under their digests. Raises WorldError for an image that is not there.
    """
    given: set[str] = set()
    for repository, tag in tagged:
        manifest = registry.manifest(repository, tag)
        if manifest is None or manifest.is_index:
            raise WorldError(
                "the registry has no such image",
                where=qualified(repository, tag),
                hint="build it again, or see what the registry holds",
            )
        contents: dict[str, bytes | Path] = {manifest.digest: manifest.body}
        for blob in manifest.blobs:
            contents[blob.digest] = _cached(registry, repository, blob.digest, cache)
        for digest, content in contents.items():
            if digest not in given:
                given.add(digest)
                yield _path("blobs", "sha256", digest[7:9], digest[7:], "data"), content
        yield from _links(repository, tag, manifest)


def _links(repository: str, tag: str, manifest: Manifest) -> Iterator[tuple[str, bytes]]:
    """How a repository says that it has blobs, a manifest and a tag."""
    top, digest = ("repositories", repository), manifest.digest
    for blob in manifest.blobs:
        yield _path(*top, "_layers/sha256", blob.digest[7:], "link"), blob.digest.encode()
    yield _path(*top, "_manifests/revisions/sha256", digest[7:], "link"), digest.encode()
    yield _path(*top, "_manifests/tags", tag, "current/link"), digest.encode()
    yield _path(*top, "_manifests/tags", tag, "index/sha256", digest[7:], "link"), digest.encode()


def _path(*parts: str) -> str:
    return ROOT.joinpath(*parts).as_posix()


def _cached(registry: Registry, repository: str, digest: str, cache: Path) -> Path:
    path = cache / digest.removeprefix("sha256:")
    if not path.exists():  # it has its name only when it is whole
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        registry.save_blob(repository, digest, partial)
        partial.replace(path)
    return path
