"""Images as a registry's files: every blob once, and an image that is not there is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import WorldError
from pipeline.world.registry_files import registry_files
from tests.fakes_registry import FakeRegistry, push_image


def test_a_layer_that_two_images_share_is_given_once(tmp_path: Path) -> None:
    registry = FakeRegistry()
    push_image(registry, "toys/runtime", b"shared", tag="b-1")
    push_image(registry, "toys/poet", b"shared", b"own", tag="b-2")
    tagged = [("toys/runtime", "b-1"), ("toys/poet", "b-2")]
    paths = [path for path, _ in registry_files(registry, tagged, tmp_path)]
    data = [path for path in paths if path.endswith("/data")]
    assert len(data) == len(set(data)) == 6  # two layers, two configs, two manifests
    assert "docker/registry/v2/repositories/toys/poet/_manifests/tags/b-2/current/link" in paths


def test_layers_are_read_from_the_registry_once(tmp_path: Path) -> None:
    registry = FakeRegistry()
    push_image(registry, "toys/poet", b"own", tag="b-2")
    first = dict(registry_files(registry, [("toys/poet", "b-2")], tmp_path))
    registry.content["toys/poet"].blobs.clear()
    assert dict(registry_files(registry, [("toys/poet", "b-2")], tmp_path)) == first


def test_an_image_that_the_registry_lost_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match=r"toys/poet:b-2: the registry has no such image"):
        list(registry_files(FakeRegistry(), [("toys/poet", "b-2")], tmp_path))
