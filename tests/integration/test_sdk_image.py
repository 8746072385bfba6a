"""An image on a vendor's SDK image, built by the real engine: two compilers of one name, variables without a shell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.canonical import sha256_bytes
from pipeline.cell import Cell
from pipeline.chip import Run
from pipeline.lock import BasePin, Lock, RequirementsPin, lock_files, requirement_inputs
from pipeline.names import names
from pipeline.project import Project
from pipeline.reporter import Reporter
from pipeline.results import BuildResult
from pipeline.stages.build import build
from pipeline.staging import Builder
from pipeline.world.engine import Engine
from pipeline.world.registry import Registry
from tests.projects import one_cell, toy_project
from tests.wheels import wheel_bytes

pytestmark = pytest.mark.integration
HOST = "127.0.0.1:5000"
CHIP = """\
    python: "3.11"
    packages: {toy-engine: "1.0"}
    system_packages: [libgomp1]
    compilers:
      triton: {title: Triton of Loom, packages: {toy-triton: 3.0+loom}, reported: pass}
      flagtree: {title: FlagTree, packages: {toy-flagtree: 0.6.0+loom}, reported: pass}
    sdk: LoomKit 1.0
    paths: [/opt/loom/bin]
    image_env: {LOOM_HOME: /opt/loom, PYTHONPATH: /opt/loom/python}
    build_disk_gib: 1
    stacks:
      native: {title: {en: Native, zh: 原生}, compiler: triton}
      flagos: {title: {en: FlagOS, zh: FlagOS}, compiler: flagtree}
    reference: native
    released: flagos
"""
BEFORE = """\
    python: "3.12"
    system_packages: [libgomp1]
    packages: {vllm: 0.24.0}
    stacks:
      plain: {title: {en: Plain, zh: 原生}}
    reference: plain
    released: plain
"""
WHEELS = {
    ("toy_engine", "1.0"): {"toy_engine.py": b"import triton\nname = triton.name\n"},
    ("toy_triton", "3.0+loom"): {"triton/__init__.py": b"name = 'Triton'\n"},
    ("toy_flagtree", "0.6.0+loom"): {"triton/__init__.py": b"name = 'FlagTree'\n"},
}
ASK = "import os, toy_engine; print(toy_engine.name, os.environ['LOOM_HOME'], os.environ['PATH'].split(':')[:2])"


def project_on(sdk: str, folder: Path) -> Project:
    on_the_sdk = ("base: mirror.test/loom/base:1", f"base: {sdk}")
    here = ("registry: registry.test/toys", f"registry: {HOST}/sdk-image-test")
    return toy_project(folder, on_the_sdk, here, (BEFORE, CHIP), ("arch: arm64", "arch: amd64"))


def locked(cell: Cell, sdk: str, folder: Path) -> tuple[Lock, dict[str, bytes]]:
    """The lock that `nox -s lock` writes where the vendor's index answers, and a folder with what it names."""
    folder.mkdir()
    blocks = {}
    for (name, version), files in WHEELS.items():
        content = wheel_bytes(name, version, files, with_record=True)
        (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(content)
        pin = f"{name.replace('_', '-')}=={version}"
        blocks[name] = f"{pin} --hash=sha256:{sha256_bytes(content)}\n".encode()
    asked = {"loom": "toy_engine", "loom/triton": "toy_triton", "loom/flagtree": "toy_flagtree"}
    files = {path: blocks[asked[key]] for key, path in lock_files("loom", cell.chip).items()}
    pins = {
        key: RequirementsPin(
            inputs_sha256=requirement_inputs(cell.chip, key.partition("/")[2]),
            sha256=sha256_bytes(files[path]),
            packages=1,
        )
        for key, path in lock_files("loom", cell.chip).items()
    }
    base = BasePin(reference=sdk, digest=sdk.partition("@")[2])
    return Lock(bases={"loom": base}, requirements=pins), files


def built(cell: Cell, lock: Lock, files: dict[str, bytes], project: Project) -> BuildResult:
    with Reporter(Console()).stage(cell.id, "build", project.root / "build.log") as log:
        builder = Builder(
            engine=Engine.connect(),
            registry=Registry(HOST),
            names=names(cell, project.target("local")),
            revision="test",
            created="2026-11-24T00:00:00Z",
            log=log,
        )
        return build(cell, lock, files, builder)


def test_each_stack_finds_its_own_compiler_and_no_shell_is_needed(
    sdk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_on(sdk, tmp_path)
    (tmp_path / "images/serving/hook.py").write_text("")
    cell = one_cell(project, "loom", "poet")
    lock, locks = locked(cell, sdk, tmp_path / "wheels")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    result = built(cell, lock, {**project.files(cell), **locks}, project)
    image = f"{HOST}/{result.model.repository}@{result.model.manifest_digest}"
    said = {}
    for stack in cell.stacks:
        run = Run(environment=cell.environment(stack))
        with Engine.connect().container(
            image, ["sleep", "infinity"], run=run, name=f"sdk-image-{stack}", volumes={}
        ) as container:
            code, said[stack] = container.execute(["python", "-c", ASK])
        assert code == 0, said[stack]
    inside = "/opt/loom ['/opt/venv/bin', '/opt/loom/bin']\n"
    assert said == {"native": f"Triton {inside}", "flagos": f"FlagTree {inside}"}


def test_the_engine_takes_every_argument_that_a_chip_may_ask_for(sdk: str) -> None:
    run = Run(
        network="none",
        runtime="runc",
        pid="host",
        uts="host",
        user="root",
        shm_size="64m",
        tmpfs=["/tmp:exec", "/scratch"],
        group_add=["video"],
        cap_add=["SYS_PTRACE"],
        security_opt=["seccomp=unconfined"],
        ulimits={"nofile": 1024},
        environment={"CARDS": "0,1"},
    )
    asked = "mount; echo groups $(id -Gn); grep CapEff /proc/self/status; ulimit -n; echo $CARDS; ls /proc | wc -l"
    with Engine.connect().container(
        sdk, ["sleep", "infinity"], run=run, name="run-arguments", volumes={}
    ) as container:
        code, said = container.execute(["sh", "-c", asked])
    assert code == 0, said
    assert re.search(r"^tmpfs on /tmp type tmpfs \((?!.*noexec)", said, flags=re.MULTILINE)
    assert re.search(r"^tmpfs on /scratch ", said, flags=re.MULTILINE)
    assert re.search(r"^shm on /dev/shm .*size=65536k", said, flags=re.MULTILINE)
    assert re.search(r"^groups root.* video", said, flags=re.MULTILINE)
    capabilities = int(re.findall(r"CapEff:\s*([0-9a-f]+)", said)[0], 16)
    assert capabilities & 1 << 19, "CAP_SYS_PTRACE"
    assert "\n1024\n0,1\n" in said
