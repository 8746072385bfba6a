"""`bootstrap` on machines made of fakes: a PATH with the programs it asks and nothing else."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEM_PROGRAMS = (
    *("bash", "cat", "dirname", "env", "grep", "id", "mkdir", "sed", "sh", "sha256sum", "tail"),
)
OPEN_REGISTRY = "HTTP/1.0 200 OK\r\nDocker-Distribution-Api-Version: registry/2.0\r\n\r\n{}"
LOCKED_REGISTRY = OPEN_REGISTRY.replace("200 OK", "401 Unauthorized")


class Machine:
    """A copy of the project on a machine that has Python and, at first, nothing else."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.programs = folder / "bin"
        self.calls = folder / "calls"
        self.project.mkdir()
        self.programs.mkdir()
        for name in ("bootstrap", "pyproject.toml"):
            shutil.copy(ROOT / name, self.project)
        for name in SYSTEM_PROGRAMS:
            (self.programs / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
        (self.programs / "python3").symlink_to(sys.executable)
        self.program("sudo", 'exec "$@"')
        self.registry_says("")

    def program(self, name: str, script: str = "") -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)

    def recorded(self, name: str, script: str = "") -> None:
        self.program(name, f'echo "{name} $*" >>{self.calls}\n{script}')

    def registry_says(self, reply: str) -> None:
        """The port is asked through `timeout`; so is the engine, which this lets through."""
        reply_file = self.programs.parent / "reply"
        reply_file.write_bytes(reply.encode())
        self.program(
            "timeout", f'if [ "$2" = docker ]; then shift; "$@"; else cat {reply_file}; fi'
        )

    def is_complete(self) -> None:
        self.program("docker", "echo 28.0.1")
        self.program("dockerd")
        self.program("docker-registry")
        self.program("mmdebstrap")
        self.program("ssh")
        self.registry_says(OPEN_REGISTRY)
        python = self.project / ".venv/bin/python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        pyproject = self.project / "pyproject.toml"
        digest = hashlib.sha256(pyproject.read_bytes()).hexdigest()
        (self.project / ".venv/installed.sha256").write_text(f"{digest}  {pyproject}\n")

    def bootstrap(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.project / "bootstrap", *words],
            env={"PATH": str(self.programs), **environment},
            cwd=self.project.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def files(self) -> set[Path]:
        return set(self.project.rglob("*"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path.resolve())


def test_bootstrap_is_an_executable_script_that_parses() -> None:
    assert os.access(ROOT / "bootstrap", os.X_OK)
    subprocess.run(["bash", "-n", ROOT / "bootstrap"], check=True)


def test_check_names_what_is_missing_and_changes_nothing(machine: Machine) -> None:
    before = machine.files()
    done = machine.bootstrap("--check")
    python, packages, *rest = done.stdout.splitlines()
    assert python == f"ok       Python >= 3.11: {'.'.join(map(str, sys.version_info[:3]))}"
    assert packages.startswith("missing  Debian packages: docker.io docker-registry mmdebstrap")
    assert rest == [
        "missing  Docker Engine: does not answer",
        "missing  registry 127.0.0.1:5000: does not answer",
        "missing  environment .venv: not there, or older than pyproject.toml",
    ]
    assert (done.returncode, done.stderr) == (1, "")
    assert machine.files() == before


def test_check_is_content_with_a_complete_machine(machine: Machine) -> None:
    machine.is_complete()
    done = machine.bootstrap("--check")
    assert done.returncode == 0, done.stdout
    assert all(line.startswith("ok  ") for line in done.stdout.splitlines())
    assert "ok       Docker Engine: 28.0.1" in done.stdout


def test_an_engine_that_works_is_enough_without_a_daemon_here(machine: Machine) -> None:
    machine.is_complete()
    (machine.programs / "dockerd").unlink()
    assert machine.bootstrap("--check").returncode == 0


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (LOCKED_REGISTRY, "answers, but asks for a login"),
        ("HTTP/1.0 200 OK\r\n\r\nhello", "taken by something that is no registry"),
    ],
)
def test_a_port_that_is_not_our_kind_of_registry_is_named(
    machine: Machine, reply: str, found: str
) -> None:
    machine.is_complete()
    machine.registry_says(reply)
    assert f"missing  registry 127.0.0.1:5000: {found}\n" in machine.bootstrap("--check").stdout
    done = machine.bootstrap("true")
    assert done.returncode == 1
    assert done.stderr == (
        f"bootstrap: 127.0.0.1:5000: {found}. Stop what listens there"
        " (Debian's own: systemctl disable --now docker-registry).\n"
    )


def test_a_moved_project_needs_its_environment_again(machine: Machine) -> None:
    machine.is_complete()
    machine.project = machine.project.rename(machine.project.with_name("moved"))
    done = machine.bootstrap("--check")
    assert "missing  environment .venv: not there, or older than pyproject.toml\n" in done.stdout


def test_an_old_python_is_passed_over(machine: Machine) -> None:
    (machine.programs / "python3").rename(machine.programs / "python3.12")
    machine.program("python3", "echo 3.9.2; exit 1")
    assert machine.bootstrap("--check").stdout.startswith("ok       Python >= 3.11: 3.1")


def test_no_python_is_said_before_anything_is_installed(machine: Machine) -> None:
    (machine.programs / "python3").unlink()
    done = machine.bootstrap("true")
    assert done.returncode == 1
    assert done.stderr == (
        "bootstrap: Python: none of python3, python3.11 … python3.14 is on PATH and new enough."
        " On Debian 12 and 13: apt-get install python3\n"
    )


def test_the_command_runs_in_the_project_with_the_environment_first(machine: Machine) -> None:
    machine.is_complete()
    tool = machine.project / ".venv/bin/tool"
    tool.write_text('#!/bin/bash\nprintf "%s\\n" "$PWD" "$VIRTUAL_ENV" "$@"; exit 7\n')
    tool.chmod(0o755)
    done = machine.bootstrap("tool", "--", "two words")
    assert done.stdout.splitlines() == [
        *(str(machine.project), str(machine.project / ".venv"), "--", "two words"),
    ]
    assert (done.returncode, done.stderr) == (7, "")


def test_only_the_missing_package_is_installed(machine: Machine) -> None:
    machine.is_complete()
    (machine.programs / "mmdebstrap").unlink()
    machine.recorded("apt-get", f"[ $1 = update ] || ln -s /bin/true {machine.programs}/mmdebstrap")
    (machine.programs / "ln").symlink_to("/bin/ln")
    for name in ("install", "rm", "systemctl"):  # these would touch the real machine
        machine.program(name)
    done = machine.bootstrap()
    log = machine.project / "out/bootstrap.log"
    assert done.stderr == f"bootstrap: installing Debian packages: mmdebstrap (log: {log})\n"
    assert done.returncode == 0
    assert machine.calls.read_text().splitlines() == [
        "apt-get update",
        "apt-get install -y --no-install-recommends mmdebstrap",
    ]


def test_a_failed_installation_shows_its_last_lines(machine: Machine) -> None:
    machine.is_complete()
    (machine.programs / "mmdebstrap").unlink()
    machine.program("apt-get", "echo E: no route to the mirror; exit 100")
    done = machine.bootstrap("true")
    assert done.returncode == 1
    assert "E: no route to the mirror\nbootstrap: failed: as_root apt-get update." in done.stderr


def test_an_engine_elsewhere_is_not_started_for_you(machine: Machine) -> None:
    machine.is_complete()
    machine.program("docker", "exit 1")
    done = machine.bootstrap("true", DOCKER_HOST="ssh://node")
    assert done.stderr == (
        "bootstrap: no engine answers at ssh://node: start that one, or unset DOCKER_HOST\n"
    )
