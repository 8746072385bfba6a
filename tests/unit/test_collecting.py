"""gc --dry-run over a registry in memory: what is kept, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.collecting import Collection, collect_unnamed
from pipeline.errors import NotAllowedError
from pipeline.world.registry_artifacts import artifact, put_artifact
from pipeline.world.shelf import Shelf
from tests.fakes_registry import FakeRegistry, push_image, push_index
from tests.projects import toy_project

STAGING = "toys/staging/abacus/poet"


class Toys:
    def __init__(self, folder: Path) -> None:
        self.project = toy_project(folder)
        self.registry = FakeRegistry()

    def collect(self) -> Collection:
        shelf = Shelf(
            registry=self.registry,
            index_repository="toys/releases",
            journals=self.project.journals,
        )
        return collect_unnamed(self.project, self.project.target("local"), self.registry, shelf)

    def unnamed(self) -> set[str]:
        return {one.tag for one in self.collect().unnamed}

    def write(self, path: str, text: str) -> None:
        file = self.project.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def toys(tmp_path: Path) -> Toys:
    return Toys(tmp_path)


def test_what_nothing_names_is_listed_with_the_bytes_that_only_it_has(toys: Toys) -> None:
    kept = push_image(toys.registry, STAGING, b"shared", b"mine", tag="b-1")
    push_image(toys.registry, STAGING, b"shared", b"theirs", tag="b-2")
    toys.write("out/2026.11.24.1/abacus/poet/record.json", f'{{"manifest_digest":"{kept}"}}')
    found = toys.collect()
    assert [one.tag for one in found.kept] == ["b-1"]
    assert [one.tag for one in found.unnamed] == ["b-2"]
    assert found.freed_bytes == len(b"theirs")


@pytest.mark.parametrize(
    "path",
    [
        "out/2026.11.24.1/abacus/poet/record.json",
        "records/2026.11.24.1/abacus/poet/record.json",
        "records/2026.11.24.1/abacus/poet/card.en.md",
        "out/hub/Poet-1B/README.md",
        "out/promotions/x.open.jsonl",
    ],
)
def test_a_record_a_card_or_a_journal_keeps_an_image(toys: Toys, path: str) -> None:
    digest = push_image(toys.registry, STAGING, b"one", tag="b-1")
    assert toys.unnamed() == {"b-1"}
    toys.write(path, f"docker pull registry.test/toys@{digest}")
    assert toys.unnamed() == set()


def test_a_public_tag_keeps_an_image(toys: Toys) -> None:
    push_image(toys.registry, STAGING, b"one", tag="b-1")
    # The config of a toy image names its repository, so the digest is brought over and not made again.
    digest = toys.registry.head(STAGING, "b-1")
    manifest = toys.registry.manifest(STAGING, str(digest))
    assert manifest is not None
    public = "toys/flagrelease_abacus_poet"
    for blob in manifest.blobs:
        toys.registry.mount_blob(public, blob.digest, STAGING)
    toys.registry.put_manifest(public, "latest", manifest.body, manifest.media_type)
    assert toys.unnamed() == set()


def test_what_belongs_or_refers_to_a_kept_image_is_kept_and_to_another_is_not(toys: Toys) -> None:
    child = push_image(toys.registry, STAGING, b"one", tag="b-child")
    index = push_index(toys.registry, STAGING, child)
    manifest = toys.registry.manifest(STAGING, index)
    assert manifest is not None
    toys.registry.put_manifest(STAGING, "b-index", manifest.body, manifest.media_type)
    other = push_image(toys.registry, STAGING, b"two", tag="b-other")
    for digest in (index, other):
        subject = toys.registry.manifest(STAGING, digest)
        assert subject is not None
        put_artifact(toys.registry, STAGING, artifact("a/b", b"{}", subject), b"{}")
    toys.write("out/card.md", index)
    assert toys.unnamed() == {"b-other", other.replace(":", "-")}


def test_a_repository_of_a_cell_that_left_the_matrix_is_looked_at_too(toys: Toys) -> None:
    push_image(toys.registry, "toys/staging/gone/poet", b"one", tag="b-1")
    push_image(toys.registry, "elsewhere/staging/gone/poet", b"one", tag="b-2")
    assert toys.unnamed() == {"b-1"}


def test_without_a_catalog_the_repositories_of_the_matrix_are_looked_at(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden() -> tuple[str, ...]:
        raise NotAllowedError("may not")

    monkeypatch.setattr(toys.registry, "repositories", forbidden)
    push_image(toys.registry, STAGING, b"one", tag="b-1")
    assert toys.unnamed() == {"b-1"}
