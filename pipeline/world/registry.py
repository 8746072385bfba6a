"""The one door to OCI registries: ask, read, mount, copy and write, by digest.

"Absent" (404) is an answer; "may not" (401, 403) and "could not ask" (all else) are WorldErrors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.parse import urljoin

import requests

from pipeline.errors import WorldError
from pipeline.world.oci import ACCEPT, Manifest, digest_of, qualified
from pipeline.world.registry_connection import (
    BlobStream,
    Body,
    Call,
    Connection,
    not_what_was_asked,
)
from pipeline.world.registry_login import docker_config_path, to_pull, to_push

LAYER_TIMEOUT_S = 300.0


class Registry:
    """A registry by its host, such as `127.0.0.1:5000`; one per thread."""

    def __init__(
        self,
        base: str,
        *,
        docker_config: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.host = base
        self._connection = Connection(base, docker_config or docker_config_path(), sleep)

    def close(self) -> None:
        self._connection.close()

    def ping(self) -> None:
        """Return if a registry answers; a 401 is an answer."""
        doing = "say whether it is there"
        self._ask(Call("GET", "/v2/", doing, accepts=(200, 401), timeout_s=2.0))

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """The manifest under a tag or digest, its bytes checked; None if absent."""
        response = self._read("GET", "manifest", repository, reference)
        if response.status_code == 404:
            return None
        digest = digest_of(response.content)
        asked = reference if ":" in reference else digest
        told = response.headers.get("Docker-Content-Digest", digest)
        if not digest == asked == told:
            named = f"manifest {qualified(repository, reference)}, told {told}"
            raise not_what_was_asked(self.host, named, digest)
        media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
        return Manifest(digest=digest, media_type=media_type, body=response.content)

    def head(self, repository: str, reference: str) -> str | None:
        """The digest behind a tag or digest; None if absent."""
        response = self._read("HEAD", "manifest", repository, reference)
        if response.status_code == 404:
            return None
        told = response.headers.get("Docker-Content-Digest")
        if told is None:
            manifest = self.manifest(repository, reference)
            return manifest.digest if manifest else None
        if ":" in reference and told != reference:
            raise not_what_was_asked(self.host, f"manifest {reference}", told)
        return told

    def tags(self, repository: str) -> tuple[str, ...]:
        """All tags, sorted; empty if the repository is absent."""
        found: list[str] = []
        seen: set[str] = set()
        url: str | None = f"/v2/{repository}/tags/list?n=100"
        while url is not None:
            call = Call(
                "GET", url, f"list the tags of {repository}", to_pull(repository), (200, 404)
            )
            response = self._ask(call)
            if response.status_code == 404:
                break
            found += self._tag_names(call, response)
            seen.add(response.url)
            following = response.links.get("next", {}).get("url")
            url = urljoin(response.url, following) if following else None
            if url in seen:
                raise self._connection.could_not(call, "it answered with pages in a circle")
        return tuple(sorted(set(found)))

    def has_blob(self, repository: str, digest: str) -> bool:
        return self._read("HEAD", "blob", repository, digest).status_code == 200

    def blob(self, repository: str, digest: str) -> bytes:
        """A small blob, such as a config, whole and checked."""
        response = self._read("GET", "blob", repository, digest, accepts=(200,))
        seen = digest_of(response.content)
        if seen != digest:
            raise not_what_was_asked(self.host, f"blob {qualified(repository, digest)}", seen)
        return response.content

    def save_blob(self, repository: str, digest: str, path: Path) -> None:
        """A blob of any size into a file, checked."""
        answer = self._read("GET", "blob", repository, digest, accepts=(200,), stream=True)
        with closing(answer) as response, path.open("wb") as file:
            file.writelines(iter(BlobStream(response, digest, self.host)))

    def mount_blob(self, repository: str, digest: str, from_repository: str) -> bool:
        """Let `repository` share a blob of another one; False if the registry wants an upload."""
        call = Call(
            "POST",
            _uploads(repository),
            f"mount {digest} from {from_repository} into {repository}",
            to_push(repository) + to_pull(from_repository),
            (201, 202),
            params={"mount": digest, "from": from_repository},
            repeatable=False,
        )
        response = self._ask(call)
        if response.status_code == 202:
            # The registry clears away uploads by itself some day, so any answer will do.
            doing, any_answer = f"cancel an upload to {repository}", tuple(range(200, 600))
            scopes = to_push(repository)
            url = _location(response)
            self._ask(Call("DELETE", url, doing, scopes, any_answer, repeatable=False))
        return response.status_code == 201

    def copy_blob(
        self,
        source_repository: str,
        target_repository: str,
        digest: str,
        *,
        target: Registry | None = None,
    ) -> int:
        """Stream a blob into another repository, here or at `target`; returns bytes sent."""
        answer = self._read("GET", "blob", source_repository, digest, accepts=(200,), stream=True)
        with closing(answer) as response:
            stream = BlobStream(response, digest, self.host)
            (target or self)._upload(target_repository, digest, stream.body())
        return stream.passed_bytes

    def put_blob(self, repository: str, data: bytes) -> str:
        digest = digest_of(data)
        self._upload(repository, digest, data)
        return digest

    def put_manifest(self, repository: str, reference: str, body: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; returns the digest."""
        digest = digest_of(body)
        call = Call(
            "PUT",
            f"/v2/{repository}/manifests/{reference}",
            f"store manifest {qualified(repository, reference)}",
            to_push(repository),
            (201,),
            headers={"Content-Type": media_type},
            body=body,
            timeout_s=30.0,
        )
        told = self._ask(call).headers.get("Docker-Content-Digest", digest)
        if told != digest:
            raise not_what_was_asked(self.host, f"to store manifest {digest}", told)
        return digest

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

    def _read(
        self,
        method: str,
        kind: Literal["manifest", "blob"],
        repository: str,
        reference: str,
        *,
        accepts: tuple[int, ...] = (200, 404),
        stream: bool = False,
    ) -> requests.Response:
        call = Call(
            method,
            f"/v2/{repository}/{kind}s/{reference}",
            f"read {kind} {qualified(repository, reference)}",
            to_pull(repository),
            accepts,
            headers=ACCEPT if kind == "manifest" else {},
            stream=stream,
            timeout_s=LAYER_TIMEOUT_S if stream else 10.0,
        )
        return self._ask(call)

    def _tag_names(self, call: Call, response: requests.Response) -> list[str]:
        try:
            names = response.json()["tags"] or []
        except (ValueError, KeyError, TypeError) as error:
            came = "it answered 200 without a list of tags"
            raise self._connection.could_not(call, came) from error
        return [str(name) for name in names]

    def _upload(self, repository: str, digest: str, body: Body) -> None:
        doing = f"take blob {qualified(repository, digest)}"
        scopes = to_push(repository)
        start = Call("POST", _uploads(repository), doing, scopes, (202,), repeatable=False)
        send = Call(
            "PUT",
            _location(self._ask(start)),
            doing,
            scopes,
            (201,),
            headers={"Content-Type": "application/octet-stream"},
            params={"digest": digest},
            body=body,
            repeatable=False,
            timeout_s=LAYER_TIMEOUT_S,
        )
        self._ask(send)


def _uploads(repository: str) -> str:
    return f"/v2/{repository}/blobs/uploads/"


def _location(response: requests.Response) -> str:
    return urljoin(response.url, response.headers.get("Location", ""))
