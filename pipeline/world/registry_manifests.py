"""Manifests out of a registry and into one, each checked against its digest."""

from __future__ import annotations

import requests

from pipeline.world.oci import ACCEPT, Manifest, digest_of, qualified
from pipeline.world.registry_connection import Call, Connection, not_what_was_asked
from pipeline.world.registry_login import to_delete, to_pull, to_push


def read_manifest(
    connection: Connection, repository: str, reference: str, absent: tuple[int, ...]
) -> Manifest | None:
    """None where the registry answers one of `absent`."""
    response = _ask("GET", connection, repository, reference, (200, *absent))
    if response.status_code != 200:
        return None
    digest = digest_of(response.content)
    asked = reference if ":" in reference else digest
    told = response.headers.get("Docker-Content-Digest", digest)
    if not digest == asked == told:
        named = f"manifest {qualified(repository, reference)}, told {told}"
        raise not_what_was_asked(connection.host, named, digest)
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
    return Manifest(digest=digest, media_type=media_type, body=response.content)


def read_digest(connection: Connection, repository: str, reference: str) -> str | None:
    """Behind a tag or digest; None if absent."""
    response = _ask("HEAD", connection, repository, reference, (200, 404))
    if response.status_code == 404:
        return None
    told = response.headers.get("Docker-Content-Digest")
    if told is None:
        manifest = read_manifest(connection, repository, reference, (404,))
        return manifest.digest if manifest else None
    if ":" in reference and told != reference:
        raise not_what_was_asked(connection.host, f"manifest {reference}", told)
    return told


def _ask(
    method: str,
    connection: Connection,
    repository: str,
    reference: str,
    accepts: tuple[int, ...],
) -> requests.Response:
    return connection.ask(
        Call(
            method,
            f"/v2/{repository}/manifests/{reference}",
            f"read manifest {qualified(repository, reference)}",
            to_pull(repository),
            accepts,
            headers=ACCEPT,
        )
    )


def write_manifest(
    connection: Connection,
    repository: str,
    reference: str,
    body: bytes,
    media_type: str,
    refused: tuple[int, ...] = (),
) -> bool:
    """Under a tag or its digest; False where the registry answers one of `refused`."""
    digest = digest_of(body)
    call = Call(
        "PUT",
        f"/v2/{repository}/manifests/{reference}",
        f"store manifest {qualified(repository, reference)}",
        to_push(repository),
        (201, *refused),
        headers={"Content-Type": media_type},
        body=body,
        timeout_s=30.0,
    )
    response = connection.ask(call)
    told = response.headers.get("Docker-Content-Digest", digest)
    if told != digest:
        raise not_what_was_asked(connection.host, f"to store manifest {digest}", told)
    return response.status_code == 201


def delete_manifest(connection: Connection, repository: str, reference: str) -> bool:
    """A tag, or by digest a manifest with all its tags; False if the registry cannot. Absent is deleted too."""
    cannot = (405,) if ":" in reference else (400, 405)
    call = Call(
        "DELETE",
        f"/v2/{repository}/manifests/{reference}",
        f"delete {qualified(repository, reference)}",
        to_delete(repository),
        (200, 202, 204, 404, *cannot),
    )
    return connection.ask(call).status_code not in cannot
