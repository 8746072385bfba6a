"""What OCI names and describes: references, digests, manifests; nothing here asks anyone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipeline.canonical import sha256_bytes
from pipeline.errors import UsageError, WorldError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
TOMBSTONE_TYPE = "application/vnd.flagos.release.tombstone.v1+json"  # ours: of what was withdrawn
WITHDRAWAL_TYPE = (
    "application/vnd.flagos.release.withdrawal.v1+json"  # ours: of the newest withdrawal
)
WITHDRAWN = "withdrawn"  # its tag, beside the release indexes
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
ACCEPT = {"Accept": f"{OCI_MANIFEST}, {OCI_INDEX}, {DOCKER_MANIFEST}, {DOCKER_LIST}"}

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    r"(?P<registry>localhost(?::\d+)?|[\w-]+(?:\.[\w-]+)*:\d+|[\w-]+(?:\.[\w-]+)+|\[[0-9a-fA-F:]+\](?::\d+)?)"
    rf"/(?P<repository>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """`registry/repository[:tag][@digest]`, taken apart."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    @property
    def version(self) -> str:
        """What to ask the registry for: the digest where there is one."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """Take an image reference apart; UsageError unless it names its registry host."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise UsageError(
            f"reading an image reference: {text!r} is none",
            hint="write host[:port]/path[:tag][@sha256:…]; no default registry is assumed",
        )
    return Reference(**match.groupdict())


def digest_of(data: bytes) -> str:
    return f"sha256:{sha256_bytes(data)}"


def qualified(repository: str, reference: str) -> str:
    """A tag or digest of a repository, as one writes it."""
    return f"{repository}@{reference}" if ":" in reference else f"{repository}:{reference}"


class Descriptor(BaseModel):
    """A manifest or blob as another manifest names it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    media_type: str = Field(alias="mediaType")
    digest: Digest
    size_bytes: int = Field(alias="size", ge=0)
    artifact_type: str | None = Field(alias="artifactType", default=None)


class Content(BaseModel):
    """The part of a manifest or index that says what belongs to it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    media_type: str | None = Field(alias="mediaType", default=None)
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    artifact_type: str | None = Field(alias="artifactType", default=None)
    subject: Descriptor | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    digest: str
    media_type: str
    body: bytes

    @property
    def is_index(self) -> bool:
        return self.media_type in (OCI_INDEX, DOCKER_LIST)

    @property
    def content(self) -> Content:
        try:
            content = Content.model_validate_json(self.body)
        except ValueError as error:
            raise self._unreadable(str(error)) from error
        if content.config is None and not self.is_index:
            raise self._unreadable("it has no config")
        return content

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, each digest once; empty for an index."""
        content = self.content
        named = (*content.layers, *([content.config] if content.config else []))
        return tuple({blob.digest: blob for blob in named}.values())

    def _unreadable(self, details: str) -> WorldError:
        return WorldError(
            f"reading the manifest {self.digest}: {self.media_type} is no image that we understand",
            details=details,
            hint="push it again as an OCI or Docker schema 2 image with sha256 digests",
        )
