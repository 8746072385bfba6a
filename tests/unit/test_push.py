"""Layers out of an engine's store, compressed by pieces, and only those that the registry lacks."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import NotAllowedError, WorldError
from pipeline.world.engine import LocalImage
from pipeline.world.engine_store import StoredImage, stored_image
from pipeline.world.push import LAYER_TYPE, PIECE_BYTES, UPLOADS, Place, compress, push, push_stored
from tests.engine_store import store_image, tar_of
from tests.fakes import FakeEngine
from tests.fakes_registry import LAYER_TYPE as OCI_LAYER_TYPE
from tests.fakes_registry import FakeRegistry

BASE = tar_of({"etc/os-release": b"Debian", "empty": b"", "odd\udcff": b"a name that is no UTF-8"})
MORE = tar_of({"opt/large": bytes(range(256)) * 8192, "opt/small": b"one"})
RUNTIME = Place(repository="toys/runtime", reference="b-1")


def stored(root: Path, *layers: bytes) -> StoredImage:
    image = stored_image(root, store_image(root, *layers))
    assert image is not None
    return image


def sent(registry: FakeRegistry, image: StoredImage, place: Place, parent: Place | None) -> str:
    return push_stored(registry, image, place, parent=parent, on_line=lambda _: None)


def test_a_layer_is_read_byte_for_byte(tmp_path: Path) -> None:
    image = stored(tmp_path, BASE, MORE)
    assert [b"".join(image.layer(number)) for number in (0, 1)] == [BASE, MORE]


def test_an_image_that_is_not_readable_here_is_none(tmp_path: Path) -> None:
    digest = store_image(tmp_path, BASE)
    assert stored_image(tmp_path / "elsewhere", digest) is None
    config = tmp_path / "image/overlay2/imagedb/content/sha256" / digest.removeprefix("sha256:")
    config.write_bytes(b"another image")
    assert stored_image(tmp_path, digest) is None


@pytest.mark.parametrize(
    ("fault", "came"),
    [
        (lambda path: path.write_bytes(b"Ubuntu"), "gave sha256:"),
        (Path.unlink, "could not give .*/etc/os-release"),
    ],
)
def test_a_changed_file_in_the_store_pushes_nothing(
    tmp_path: Path, fault: Callable[[Path], object], came: str
) -> None:
    image, registry = stored(tmp_path, BASE), FakeRegistry()
    fault(next(tmp_path.rglob("os-release")))
    with pytest.raises(WorldError, match=f"the engine's store {came}"):
        sent(registry, image, RUNTIME, None)
    assert registry.tags("toys/runtime") == ()


@pytest.mark.parametrize("size_bytes", [1, PIECE_BYTES, PIECE_BYTES * 3 + 1])
def test_compressed_pieces_are_one_gzip_file_and_always_the_same(size_bytes: int) -> None:
    data = (bytes(range(256)) * (size_bytes // 256 + 1))[:size_bytes]
    cuts = [data[start : start + 99_999] for start in range(0, size_bytes, 99_999)]
    packed = b"".join(compress(cuts))
    assert gzip.decompress(packed) == data
    assert b"".join(compress([data])) == packed


def test_a_pushed_image_has_the_config_and_the_layers_of_the_engine(tmp_path: Path) -> None:
    registry, image = FakeRegistry(), stored(tmp_path, BASE, MORE)
    digest = sent(registry, image, RUNTIME, None)
    manifest = registry.manifest("toys/runtime", "b-1")
    assert manifest is not None
    assert manifest.digest == digest
    content = manifest.content
    assert content.config is not None
    assert registry.blob("toys/runtime", content.config.digest) == image.config
    layers = [registry.blob("toys/runtime", layer.digest) for layer in content.layers]
    assert [gzip.decompress(layer) for layer in layers] == [BASE, MORE]
    assert [layer.size_bytes for layer in content.layers] == list(map(len, layers))


def test_layers_of_the_parent_are_mounted_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    registry = FakeRegistry()
    base = sent(
        registry, stored(tmp_path, BASE), Place(repository="toys/base", reference="b"), None
    )
    parent = Place(repository="toys/base", reference=base)
    runtime = stored(tmp_path / "runtime", BASE, MORE)
    registry.changes.clear()
    first = sent(registry, runtime, RUNTIME, parent)
    kinds = sorted(change.partition(" ")[0] for change in registry.changes)
    assert kinds == ["blob", "blob", "mount", "tag"]  # the config, the upper layer, the base
    registry.changes.clear()
    assert (
        sent(registry, runtime, RUNTIME, Place(repository="toys/runtime", reference=first)) == first
    )
    assert [change for change in registry.changes if change.startswith("blob")] == []


def test_layers_of_a_base_elsewhere_are_sent_once(tmp_path: Path) -> None:
    registry = FakeRegistry()
    sent(registry, stored(tmp_path, BASE, MORE), RUNTIME, None)
    registry.changes.clear()
    other = stored(tmp_path / "other", BASE, tar_of({"opt/other": b"one"}))
    lines: list[str] = []
    again = Place(repository="toys/runtime", reference="b-2")
    push_stored(registry, other, again, parent=None, on_line=lines.append)
    assert lines == ["layer 1 of 2: the registry has it", "layer 2 of 2: compressing"]
    first, second = (registry.manifest("toys/runtime", tag) for tag in ("b-1", "b-2"))
    assert first is not None
    assert second is not None
    assert first.content.layers[0] == second.content.layers[0]


def test_layers_of_a_base_in_the_words_of_oci_are_mounted_too(tmp_path: Path) -> None:
    registry = FakeRegistry()
    base = Place(repository="toys/base", reference="b")
    sent(registry, stored(tmp_path, BASE), base, None)
    manifest = registry.manifest("toys/base", "b")
    assert manifest is not None
    oci = manifest.body.replace(LAYER_TYPE.encode(), OCI_LAYER_TYPE.encode())
    assert oci != manifest.body
    registry.put_manifest("toys/base", "oci", oci, "application/vnd.oci.image.manifest.v1+json")
    lines: list[str] = []
    runtime = stored(tmp_path / "runtime", BASE, MORE)
    parent = Place(repository="toys/base", reference="oci")
    push_stored(registry, runtime, RUNTIME, parent=parent, on_line=lines.append)
    assert lines[0] == "layer 1 of 2: the registry has it"
    pushed = registry.manifest("toys/runtime", "b-1")
    assert pushed is not None
    assert {layer.media_type for layer in pushed.content.layers} == {LAYER_TYPE}


def test_the_engine_pushes_what_cannot_be_read_here() -> None:
    registry = FakeRegistry("127.0.0.1:5000")
    engine = FakeEngine(registry=registry)
    lines: list[str] = []
    image = LocalImage(config_digest=f"sha256:{'1' * 64}", size_bytes=1, labels={})
    digest = push(engine, registry, image, RUNTIME, parent=None, on_line=lines.append)
    assert lines == ["pushing 127.0.0.1:5000/toys/runtime:b-1"]
    assert registry.head("toys/runtime", "b-1") == digest


def test_the_engine_pushes_what_can_be_read_in_part_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry("127.0.0.1:5000")
    engine, image = FakeEngine(registry=registry), stored(tmp_path, BASE)
    monkeypatch.setattr(engine, "stored", lambda _: image)
    read = Path.open  # root may read every file, and tests run as root

    def refused(path: Path, *args: Any, **more: Any) -> Any:
        if path.name == "os-release":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "open", refused)
    lines: list[str] = []
    local = LocalImage(config_digest=f"sha256:{'1' * 64}", size_bytes=1, labels={})
    push(engine, registry, local, RUNTIME, parent=None, on_line=lines.append)
    assert lines[-1] == "pushing 127.0.0.1:5000/toys/runtime:b-1"
    assert lines[-2].startswith("the engine pushes, for this process may not read ")


def test_the_manifest_is_of_the_type_that_docker_push_writes(tmp_path: Path) -> None:
    registry = FakeRegistry()
    sent(registry, stored(tmp_path, BASE), RUNTIME, None)
    manifest = registry.manifest("toys/runtime", "b-1")
    assert manifest is not None
    body = json.loads(manifest.body)
    assert manifest.media_type == body["mediaType"]
    assert body["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert set(body["layers"][0]) == {"mediaType", "digest", "size"}


class SlowRegistry(FakeRegistry):
    """Takes this long for a file; notes how many lie in its folder then."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.waiting: list[int] = []

    def put_file(self, repository: str, digest: str, path: Path) -> None:
        time.sleep(self.seconds)
        self.waiting.append(len(list(path.parent.glob("*.tar.gz*"))))
        super().put_file(repository, digest, path)


class RefusingRegistry(FakeRegistry):
    def put_file(self, repository: str, digest: str, path: Path) -> None:
        raise NotAllowedError("may not", where=self.host)


@pytest.fixture
def many(tmp_path: Path) -> StoredImage:
    return stored(tmp_path, *[tar_of({f"{number}": b"content"}) for number in range(12)])


def test_an_interrupt_does_not_wait_for_uploads(many: StoredImage) -> None:
    registry, started = SlowRegistry(1.5), time.monotonic()

    def interrupted(line: str) -> None:
        if line.startswith("layer 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push_stored(registry, many, RUNTIME, parent=None, on_line=interrupted)
    assert time.monotonic() - started < 1


def test_a_refused_upload_is_told_before_the_other_layers_are_compressed(many: StoredImage) -> None:
    lines: list[str] = []
    with pytest.raises(NotAllowedError):
        push_stored(RefusingRegistry(), many, RUNTIME, parent=None, on_line=lines.append)
    assert len(lines) <= UPLOADS + 2


def test_few_compressed_layers_wait_for_a_slow_registry(many: StoredImage) -> None:
    registry = SlowRegistry(0.1)
    push_stored(registry, many, RUNTIME, parent=None, on_line=lambda _: None)
    assert len(registry.waiting) == len(many.diff_ids)
    assert max(registry.waiting) <= UPLOADS + 1
