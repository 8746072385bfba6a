"""Secrets of the environment and of Docker's configuration appear nowhere: a real release, and all that it leaves.

Looked at are its output, out/, what it rendered, the registry's storage (layers unpacked) and log, the images as the
engine exports them, those of single build steps too, and the command line of every process of this machine meanwhile.
"""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import docker
import pytest

from pipeline.lock import lock_bytes
from pipeline.project import Project
from tests.integration.test_sdk_image import WHEELS, locked, project_on
from tests.projects import ROOT, one_cell
from tests.real_registry import USER, real_registry, write_passwords
from tests.secret_flow import CELL
from tests.wheel_index import wheel_index
from tests.wheels import wheel_bytes

pytestmark = pytest.mark.integration
PASSWORD = "planted-registry-password"
INDEX, PROXY = "planted-index-password", "planted-proxy-password"
BESIDE, OF_CHIP = "planted-extra-index-password", "planted-chip-index-password"
TOKENS = {"HF_TOKEN": "hf_planted0token0of0hub", "MODELSCOPE_API_TOKEN": "ms-planted-token-of-hub"}
# As they are, and as Docker's configuration and a Basic header have them.
SECRETS = {
    secret.encode()
    for secret in (
        PASSWORD,
        base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode(),
        INDEX,
        BESIDE,
        OF_CHIP,
        *(
            base64.b64encode(f"planted:{word}".encode()).decode()
            for word in (INDEX, BESIDE, OF_CHIP)
        ),
        PROXY,
        *TOKENS.values(),
    )
}
RELEASE, NEXT = "2026.11.24.1", "2026.11.24.2"


@dataclass
class Watch:
    """Every command line that was seen in /proc, again and again until it ends."""

    seen: set[bytes] = field(default_factory=set)
    ended: Event = field(default_factory=Event)

    def look(self) -> None:
        while not self.ended.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    self.seen.add((process / "cmdline").read_bytes())
            time.sleep(0.002)


@contextmanager
def watching() -> Iterator[Watch]:
    watch = Watch()
    thread = Thread(target=watch.look)
    thread.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        thread.join()


def contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """A file, and what is in it where it is packed: layers of a registry, members of a tar."""
    data = path.read_bytes()
    yield str(path), data
    if data[:2] == b"\x1f\x8b":
        yield f"{path}, unpacked", gzip.decompress(data)


def leaks(*places: Path) -> list[str]:
    """Where a secret lies below these folders; names of files count too."""
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    named = [str(path) for path in files if any(one in os.fsencode(path) for one in SECRETS)]
    held = [
        where
        for path in files
        for where, data in contents(path)
        if any(secret in data for secret in SECRETS)
    ]
    return named + held


def told(texts: Mapping[str, bytes]) -> list[str]:
    return [name for name, text in texts.items() if any(secret in text for secret in SECRETS)]


def environment(folder: Path, index: str, beside: str) -> dict[str, str]:
    """Secrets wherever a user may have some. Of Docker's configuration there is none yet: `login` writes it."""
    return {
        **os.environ,
        **TOKENS,
        "PYTHONPATH": str(ROOT),
        "DOCKER_CONFIG": str(folder),
        "FLAGRELEASE_REGISTRY_USER": USER,
        "FLAGRELEASE_REGISTRY_PASSWORD": PASSWORD,
        "PIP_INDEX_URL": index,
        "PIP_EXTRA_INDEX_URL": beside,
        "HTTP_PROXY": f"http://planted:{PROXY}@127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }


def ran(
    project: Path, variables: Mapping[str, str], *words: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=project,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=300,
    )


def image_ids() -> set[str]:
    """Of every image that the engine keeps, those of single build steps too."""
    client = docker.from_env()
    found = {str(image.id) for image in client.images.list(all=True)}
    client.close()
    return found


def steps_on(base: str, images: set[str], folder: Path) -> int:
    """Export those of the images that were built on this one, with their history and configuration; how many."""
    folder.mkdir()
    client = docker.from_env()
    root = client.images.get(base).id
    ours = []
    for number, name in enumerate(images):
        try:
            image = client.images.get(name)
            history = image.history()
        except docker.errors.ImageNotFound:  # somebody else's, who removed it meanwhile
            continue
        if any(step["Id"] == root for step in history):
            (folder / f"{number}.history").write_text(f"{history} {image.attrs}")
            ours.append(str(image.id))
    client.close()
    # Together, so that a layer is written once however many images have it.
    subprocess.run(["docker", "save", "--output", folder / "steps.tar", *ours], check=True)
    return len(ours)


def exported(registry: str, folder: Path) -> None:
    """All images of this registry as the engine gives them away, with their history."""
    folder.mkdir()
    client = docker.from_env()
    for number, image in enumerate(client.images.list()):
        if any(tag.startswith(f"{registry}/") for tag in image.tags):
            (folder / f"{number}.history").write_text(str(image.history()))
            with (folder / f"{number}.tar").open("wb") as file:
                file.writelines(image.save(named=True))
            for tag in image.tags:
                client.images.remove(tag)
    client.close()


def made_project(sdk: str, folder: Path, registry: str, index: str) -> Project:
    """A toy whose image is built on a real base from wheels of private indexes, one of them its chip's."""
    folder.mkdir()
    project = project_on(sdk, folder)
    text = project.matrix_path.read_text()
    here = text.replace("127.0.0.1:5000/sdk-image-test", f"{registry}/toys")
    project.matrix_path.write_text(
        here.replace("    sdk: LoomKit", f'    indexes: ["{index}"]\n    sdk: LoomKit')
    )
    project = Project(folder, project.matrix_path)
    (folder / "images/serving/hook.py").write_text("")
    lock, locks = locked(one_cell(project, *CELL), sdk, folder / "wheels")
    (folder / "matrix.lock").write_bytes(lock_bytes(lock))
    for path, content in locks.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return project


def test_planted_secrets_are_nowhere_after_a_release_and_after_a_refused_one(
    sdk: str, tmp_path: Path
) -> None:
    wheels = {
        f"{name}-{version}-py3-none-any.whl": wheel_bytes(name, version, files, with_record=True)
        for (name, version), files in WHEELS.items()
    }
    engine, triton, flagtree = ({name: wheels[name]} for name in wheels)
    before = image_ids()
    passwords, given = write_passwords(tmp_path / "passwords", PASSWORD), set[str]()
    with (
        wheel_index(engine, f"planted:{INDEX}", given) as index,
        wheel_index(triton, f"planted:{BESIDE}", given) as beside,
        wheel_index(flagtree, f"planted:{OF_CHIP}", given) as of_chip,
        real_registry(tmp_path / "registry", passwords=passwords) as host,
        watching() as watch,
    ):
        project = made_project(sdk, tmp_path / "project", host, of_chip)
        variables = environment(tmp_path / "docker", index, beside)
        login = ran(project.root, variables, "pipeline", "login")
        assert login.returncode == 0, login.stdout.decode()
        doctor = ran(project.root, variables, "pipeline", "doctor", *CELL)
        released = ran(project.root, variables, "tests.secret_flow", RELEASE)
        assert released.returncode == 0, released.stdout.decode()
        write_passwords(passwords, "U*U")
        refused = ran(project.root, variables, "tests.secret_flow", NEXT)
        steps = steps_on(sdk, image_ids() - before, tmp_path / "steps")
        exported(host, tmp_path / "images")

    record = project.store.read(RELEASE, *CELL)
    assert record is not None
    assert record.stages.promote is not None
    assert record.stages.promote.status == record.stages.build.status == "passed"  # type: ignore[union-attr]
    assert b"ok       credentials of " in doctor.stdout
    assert refused.returncode == 1
    assert b"this account may not" in refused.stdout
    outputs = {"login": login, "doctor": doctor, "released": released, "refused": refused}
    assert told({name: done.stdout for name, done in outputs.items()}) == []
    project.matrix_path.unlink()  # where somebody wrote the account of the chip's index
    assert leaks(project.root, *(tmp_path / name for name in ("registry", "images", "steps"))) == []
    assert told({str(line): line for line in watch.seen}) == []

    # What was searched was there: the secrets in use, the images, and the processes.
    assert (
        base64.b64encode(f"{USER}:{PASSWORD}".encode())
        in (tmp_path / "docker/config.json").read_bytes()
    )
    assert given == set(wheels)
    assert len(list((tmp_path / "images").glob("*.tar"))) == 2
    assert steps > 10  # of the builder stage, which no tag names, and of both images
    assert b"127.0.0.1" in (tmp_path / "steps/steps.tar").read_bytes()  # host/uv.toml is among them
    assert list((project.root / "out").rglob("*.log"))
    for words in (b"docker\x00login", b"tests.secret_flow", b"\x00doctor\x00"):
        assert [line for line in watch.seen if words in line], words


def test_the_search_finds_what_is_planted_for_it(tmp_path: Path) -> None:
    """In a file, in a packed layer, in a name, and in the command line of a process."""
    (tmp_path / "log").write_bytes(b"password: " + PASSWORD.encode())
    with tarfile.open(tmp_path / "layer", "w:gz") as layer:
        layer.add(tmp_path / "log", "etc/login")
    (tmp_path / INDEX).touch()
    (tmp_path / "clean").write_bytes(b"nothing")
    assert sorted(leaks(tmp_path)) == sorted(
        [str(tmp_path / INDEX), str(tmp_path / "log"), f"{tmp_path / 'layer'}, unpacked"]
    )
    with watching() as watch:
        subprocess.run([sys.executable, "-c", "pass", PROXY], check=True, timeout=30)
    assert [line for line in told({str(line): line for line in watch.seen}) if PROXY in line]
