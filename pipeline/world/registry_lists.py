"""Lists of a registry: pages of names, and what refers to an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urljoin

import requests

from pipeline.world.oci import Content, Descriptor
from pipeline.world.registry_connection import Call, Connection, said
from pipeline.world.registry_login import Scopes, to_pull

TO_LIST: Scopes = ("registry:catalog:*",)


def tag_names(connection: Connection, repository: str) -> tuple[str, ...]:
    """All tags, sorted; empty if the repository is absent."""
    url, doing = f"/v2/{repository}/tags/list?n=100", f"list the tags of {repository}"
    return _names(connection, Call("GET", url, doing, to_pull(repository), (200, 404)), "tags")


def repository_names(connection: Connection) -> tuple[str, ...]:
    """All repositories, sorted. NotAllowedError is common: Harbor shows its catalog to administrators only."""
    call = Call("GET", "/v2/_catalog?n=100", "list its repositories", TO_LIST)
    return _names(connection, call, "repositories")


def referring(
    connection: Connection, repository: str, digest: str
) -> tuple[Descriptor, ...] | None:
    """What the registry lists as referring to a manifest; None if it keeps no such list.

    One that does not know the address at all, as docker-registry 2.8, is not asked for another list.
    """
    if connection.lacks_referrers:
        return None
    url = f"/v2/{repository}/referrers/{digest}"
    doing = f"list what refers to {repository}@{digest}"
    call = Call("GET", url, doing, to_pull(repository), (200, 404))
    found: list[Descriptor] = []
    for response in _pages(connection, call):
        if response.status_code == 404:
            connection.lacks_referrers = not said(response)
            return None
        try:
            found += Content.model_validate_json(response.content).manifests
        except ValueError as error:
            raise connection.could_not(call, "it answered 200 without an index") from error
    return tuple(found)


def _names(connection: Connection, call: Call, key: str) -> tuple[str, ...]:
    found: set[str] = set()
    for response in _pages(connection, call):
        if response.status_code == 404:
            break
        try:
            found.update(map(str, response.json()[key] or []))
        except (ValueError, KeyError, TypeError) as error:
            came = f"it answered 200 without a list of {key}"
            raise connection.could_not(call, came) from error
    return tuple(sorted(found))


def _pages(connection: Connection, call: Call) -> Iterator[requests.Response]:
    seen: set[str] = set()
    while True:
        response = connection.ask(call)
        yield response
        seen.add(response.url)
        following = response.links.get("next", {}).get("url")
        if not following:
            return
        call = replace(call, url=urljoin(response.url, following))
        if call.url in seen:
            raise connection.could_not(call, "it answered with pages in a circle")
