"""The one door to OCI registries: ask, read, mount, copy, write and delete, by digest.

"Absent" (404) is an answer; "may not" (401, 403) is a NotAllowedError, "could not ask" (all else) a NoAnswerError.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import requests

from pipeline.errors import WorldError
from pipeline.world.oci import Descriptor, Manifest, digest_of, qualified
from pipeline.world.registry_blobs import (
    cancel_upload,
    file_chunks,
    read_blob,
    uploads,
    write_blob,
)
from pipeline.world.registry_connection import (
    CERTIFICATES,
    Call,
    Connection,
    Greeting,
    not_what_was_asked,
)
from pipeline.world.registry_credentials import docker_config_path
from pipeline.world.registry_lists import referring, repository_names, tag_names
from pipeline.world.registry_login import to_pull, to_push
from pipeline.world.registry_manifests import (
    delete_manifest,
    read_digest,
    read_manifest,
    write_manifest,
)
from pipeline.world.registry_retries import date_of
from pipeline.world.registry_threads import Connections

# Of what is to be written. A full disk cuts entries of docker-registry 2.8 short: it answers 500 until they are
# stored once more.
ABSENT_OR_CUT_SHORT = (404, 500)
AT_ONCE = 4  # questions side by side, where nobody says otherwise
T = TypeVar("T")
R = TypeVar("R")


class Registry:
    """A registry by its host, such as `127.0.0.1:5000`. Every thread that asks it has a connection of its own."""

    # Whether a manifest that is deleted and stored again still has what refers to it.
    keeps_referrers = True

    def __init__(
        self,
        base: str,
        *,
        docker_config: Path | None = None,
        certificates: Path = CERTIFICATES,
        sleep: Callable[[float], None] = time.sleep,
        at_once: int = AT_ONCE,
    ) -> None:
        self.host = base
        config = docker_config or docker_config_path()
        self._connections = Connections(base, config, sleep, certificates, at_once)

    @property
    def _connection(self) -> Connection:
        return self._connections.own()

    def close(self) -> None:
        self._connections.close()

    def each(self, work: Callable[[T], R], items: Iterable[T]) -> tuple[R, ...]:
        """What `work` gives for each, in their order, a few side by side; `work` calls no `each` itself."""
        return self._connections.each(work, items)

    def greeting(self) -> Greeting:
        """Of any registry that answers; a 401 is an answer."""
        doing = "say whether it is there"
        response = self._ask(Call("GET", "/v2/", doing, accepts=(200, 401), timeout_s=2.0))
        lets_in = response.status_code == 200
        return Greeting(lets_in=lets_in, time=date_of(response.headers.get("Date", "")))

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """The manifest under a tag or digest, its bytes checked; None if absent."""
        return read_manifest(self._connection, repository, reference, (404,))

    def intact_manifest(self, repository: str, reference: str) -> Manifest | None:
        """As `manifest`; None also where the registry cannot read what it stored, for who would write it again."""
        return read_manifest(self._connection, repository, reference, ABSENT_OR_CUT_SHORT)

    def head(self, repository: str, reference: str) -> str | None:
        """The digest behind a tag or digest; None if absent."""
        return read_digest(self._connection, repository, reference)

    def tags(self, repository: str) -> tuple[str, ...]:
        """All tags, sorted; empty if the repository is absent."""
        return tag_names(self._connection, repository)

    def repositories(self) -> tuple[str, ...]:
        """All repositories, sorted; NotAllowedError where only administrators may list them."""
        return repository_names(self._connection)

    def referring(self, repository: str, digest: str) -> tuple[Descriptor, ...] | None:
        """What the registry itself lists as referring to a manifest; None if it keeps no such list."""
        return referring(self._connection, repository, digest)

    def has_blob(self, repository: str, digest: str) -> bool:
        """False where it is to be sent: absent, or the registry cannot read what it stored of it."""
        accepts = (200, *ABSENT_OR_CUT_SHORT)
        return self._blob("HEAD", repository, digest, accepts).status_code == 200

    def blob(self, repository: str, digest: str) -> bytes:
        """A small blob, such as a config, whole and checked."""
        response = self._blob("GET", repository, digest, (200,))
        seen = digest_of(response.content)
        if seen != digest:
            raise not_what_was_asked(self.host, f"blob {qualified(repository, digest)}", seen)
        return response.content

    def save_blob(self, repository: str, digest: str, path: Path) -> None:
        """A blob of any size into a file, checked."""
        with path.open("wb") as file:
            file.writelines(read_blob(self._connection, repository, digest))

    def mount_blob(self, repository: str, digest: str, from_repository: str) -> bool:
        """Let `repository` share a blob of another one; False if the registry wants an upload."""
        call = Call(
            "POST",
            uploads(repository),
            f"mount {digest} from {from_repository} into {repository}",
            to_push(repository) + to_pull(from_repository),
            (201, 202),
            params={"mount": digest, "from": from_repository},
        )
        response = self._ask(call)
        if response.status_code == 202:
            cancel_upload(self._connection, repository, response)
        return response.status_code == 201

    def copy_blob(
        self,
        source_repository: str,
        target_repository: str,
        digest: str,
        *,
        target: Registry | None = None,
    ) -> int:
        """Stream a blob into another repository, here or at `target`; returns its bytes."""
        return write_blob(
            (target or self)._connection,
            target_repository,
            digest,
            lambda: read_blob(self._connection, source_repository, digest),
        )

    def put_blob(self, repository: str, data: bytes) -> str:
        digest = digest_of(data)
        write_blob(self._connection, repository, digest, lambda: (data,))
        return digest

    def put_file(self, repository: str, digest: str, path: Path) -> None:
        """A file of any size as the blob of this digest."""
        write_blob(self._connection, repository, digest, lambda: file_chunks(path))

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns the digest."""
        write_manifest(self._connection, repository, reference, body, media_type)
        return digest_of(body)

    def can_overwrite(self, repository: str, tag: str, manifest: Manifest) -> bool:
        """Try to set a tag that exists to another manifest; False if the registry answers no."""
        no = (400, 403, 405, 409, 412)  # 412 is Harbor's; others have others
        body, media_type = manifest.body, manifest.media_type
        return write_manifest(self._connection, repository, tag, body, media_type, refused=no)

    def delete(self, repository: str, reference: str) -> bool:
        """Delete a tag, or a manifest by digest with all its tags; False if the registry cannot (405, or 400 of a tag).

        Absent already is deleted too.
        """
        return delete_manifest(self._connection, repository, reference)

    def stored_bytes(self, repository: str, digest: str) -> int:
        """Compressed layers and config, as the manifest states them; of an index, its children."""
        manifest = self._present(repository, digest)
        children = manifest.content.manifests
        own = sum(blob.size_bytes for blob in manifest.blobs)
        return own + sum(self.stored_bytes(repository, child.digest) for child in children)

    def config_digest(self, repository: str, digest: str) -> str:
        """The digest that identifies the image wherever it is; an index has none."""
        config = self._present(repository, digest).content.config
        if config is None:
            raise WorldError(
                f"reading the config digest of {qualified(repository, digest)}: it is an index",
                where=self.host,
                hint="ask for the manifest of one platform",
            )
        return config.digest

    def _ask(self, call: Call) -> requests.Response:
        return self._connection.ask(call)

    def _present(self, repository: str, digest: str) -> Manifest:
        manifest = self.manifest(repository, digest)
        if manifest is None:
            raise WorldError(
                f"reading manifest {qualified(repository, digest)}: the registry does not have it",
                where=self.host,
                hint="build the image again, its registry lost it",
            )
        return manifest

    def _blob(
        self, method: str, repository: str, digest: str, accepts: tuple[int, ...]
    ) -> requests.Response:
        call = Call(
            method,
            f"/v2/{repository}/blobs/{digest}",
            f"read blob {qualified(repository, digest)}",
            to_pull(repository),
            accepts,
        )
        return self._ask(call)
