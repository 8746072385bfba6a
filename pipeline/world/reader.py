"""The machine of a card's reader: a fresh Debian with Docker's client, beside the engine. Blocks run as printed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.canonical import canonical, sha256_bytes
from pipeline.chip import Base, Run
from pipeline.world.context import ca_bundle, index_settings
from pipeline.world.debian import bootstrap, bootstrap_arguments
from pipeline.world.engine import Engine
from pipeline.world.registry_credentials import login_file
from pipeline.world.scratch import scratch_folder

DRIVER = Path(__file__).with_name("reader.sh")
# What every card asks its reader to have, and nothing else.
MACHINE = Base(
    debian="trixie",
    include=["ca-certificates", "curl", "docker-cli", "python3", "python3-pip", "python3-venv"],
)
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
POLL_S = 0.5
_SETTINGS = {"DOCKER_CONFIG": "/rehearsal/docker"}
MACHINE_NAMES = "flagrelease-reader-"


@dataclass(frozen=True, kw_only=True)
class Script:
    """One block as it is run."""

    language: str  # bash or python
    text: str


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a block ended. exit_code None: it did not end, or was not begun."""

    exit_code: int | None
    seconds: float
    output: str


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What the reader's machine said of itself, and how each block ended."""

    machine: str
    ran: tuple[Ran, ...]


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Makes the machine once for an engine; every visit starts from a fresh one, with a home of its own."""

    engine: Engine
    arch: str
    log: Path
    say: Callable[[str], None]

    def visit(
        self,
        scripts: Sequence[Script],
        *,
        name: str,
        volumes: Mapping[str, str],
        registry: str,
        limit_s: float,
    ) -> Visit:
        """Run the scripts in order, until one fails or the time is over. `registry` is where images are pulled from."""
        image = self._image()
        with scratch_folder() as folder:
            _lay_out(folder, scripts, registry)
            with self.engine.container(
                image,
                ["bash", "/rehearsal/run"],
                run=Run(network="host", environment={**_SETTINGS, **index_settings()}),
                name=f"{MACHINE_NAMES}{name}",
                volumes={
                    **volumes,
                    str(folder): "/rehearsal",
                    str(ca_bundle()): f"{CA_BUNDLE}:ro",
                    _socket(): "/var/run/docker.sock",
                },
            ) as container:
                until = time.monotonic() + limit_s
                while container.running() and time.monotonic() < until:
                    self.say(_progress(folder, len(scripts)))
                    time.sleep(POLL_S)
                return _visit(folder, scripts)

    def _image(self) -> str:
        told = bootstrap_arguments(MACHINE, self.arch)
        tag = f"flagrelease/reader:{sha256_bytes(canonical(list(told)))[:16]}"
        if self.engine.image(tag) is None:
            self.say(f"making the reader's machine, once: Debian {MACHINE.debian}")
            with scratch_folder() as folder:
                archive = folder / "reader.tar"
                bootstrap(MACHINE, self.arch, archive, log=self.log, on_line=self.say)
                self.engine.import_tree(archive, tag=tag, changes=['CMD ["bash"]'])
        return tag


def _lay_out(folder: Path, scripts: Sequence[Script], registry: str) -> None:
    (folder / "run").write_bytes(DRIVER.read_bytes())
    (folder / "blocks").mkdir()
    for number, script in enumerate(scripts, 1):
        _block(folder, number, script).write_text(script.text, "utf-8")
    (folder / "docker").mkdir(mode=0o700)
    (folder / "docker" / "config.json").write_bytes(login_file(registry))


def _block(folder: Path, number: int, script: Script) -> Path:
    return folder / "blocks" / f"{number:03}.{script.language}"


def _visit(folder: Path, scripts: Sequence[Script]) -> Visit:
    blocks = [_block(folder, number, script) for number, script in enumerate(scripts, 1)]
    machine = folder / "machine"
    return Visit(
        machine=", ".join(machine.read_text("utf-8").split("\n")[:-1]) if machine.exists() else "",
        ran=tuple(map(_ran, blocks)),
    )


def _ran(block: Path) -> Ran:
    ended, output = Path(f"{block}.ended"), Path(f"{block}.output")
    code, start, end = ended.read_text().split() if ended.exists() else (None, "0", "0")
    return Ran(
        exit_code=None if code is None else int(code),
        seconds=round(float(end) - float(start), 2),
        output=output.read_text("utf-8", errors="replace") if output.exists() else "",
    )


def _progress(folder: Path, count: int) -> str:
    done = len(list((folder / "blocks").glob("*.ended")))
    return f"block {min(done + 1, count)} of {count}"


def _socket() -> str:
    """Of the engine, on its own machine."""
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else "/var/run/docker.sock"
