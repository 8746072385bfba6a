"""FlagScale 0.8.0 itself, with the packages of the cpu image and a `vllm` that only writes down how it was called."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.cell import Cell
from pipeline.world.harness_environment import harness_python
from tests.projects import ROOT

EXPERIMENTS = "/var/lib/flagscale"  # of the images; tests write elsewhere
# What serving needs (facts/flagos-stack.md, section 2.2), with what that needs.
NEEDED = """
flag-scale click hydra-core omegaconf antlr4-python3-runtime pyyaml psutil packaging numpy pandas python-dateutil six
aiohttp aiohappyeyeballs aiosignal attrs frozenlist multidict propcache yarl typing-extensions requests certifi
charset-normalizer idna urllib3 tqdm
"""
STAND_IN = """\
#!/bin/bash
printf '%s\\0' "PYTHONPATH=$PYTHONPATH" vllm "$@" > "$CALLED.part" && mv "$CALLED.part" "$CALLED"
"""


class FlagScale:
    """Its environment, and a folder for what it writes."""

    def __init__(self, folder: Path) -> None:
        wanted = folder / "flagscale.txt"
        write_whole(wanted, "".join(_locked_blocks()).encode())
        self.folder = folder
        self.bin = harness_python(wanted, ROOT / "out" / "environments", print).parent
        self._packages = next(self.bin.parent.glob("lib/python*/site-packages"))
        self._programs = folder / "programs"
        self._programs.mkdir()
        stand_in = self._programs / "vllm"
        stand_in.write_text(STAND_IN)
        stand_in.chmod(0o755)

    def serve(self, cell: Cell, stack: str, *, wait_s: float = 60) -> tuple[str, tuple[str, ...]]:
        """`flagscale serve` as the card prints it; the PYTHONPATH and the command line with which it started vLLM."""
        conf = self.folder / f"{cell.chip_id}-{cell.model_id}"
        if not conf.exists():
            shutil.copytree(ROOT / "images" / cell.id / "conf", conf)
            for path in conf.glob("*.yaml"):
                here = path.read_text().replace(EXPERIMENTS, f"{conf}/experiments")
                path.write_text(here.replace(cell.site_packages, str(self._packages)))
        called, file = conf / f"{stack}.called", conf / cell.experiment_file(stack)
        self._run([self.bin / "flagscale", "serve", cell.model_id, file], CALLED=str(called))
        deadline = time.monotonic() + wait_s
        while not called.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        first, *words = called.read_text().split("\0")[:-1]
        return first.removeprefix("PYTHONPATH="), tuple(words)

    def lines(self, files: Sequence[Path]) -> dict[Path, tuple[str, ...]]:
        """Every experiment file resolved by FlagScale's own code, to the command line of vLLM."""
        called = self.folder / "called"
        package = self._packages / "flag_scale"
        names = self._run(
            [
                self.bin / "python",
                "-P",
                ROOT / "tests/flagscale_lines.py",
                self.folder / "runs",
                *files,
            ],
            folder=package,  # as its start script does
            PYTHONPATH=str(package),
            CALLED=str(called),
        )
        found: Mapping[str, list[str]] = json.loads(names.splitlines()[-1])
        return {Path(name): tuple(words) for name, words in found.items()}

    def _run(
        self, command: Sequence[str | Path], folder: Path | None = None, **variables: str
    ) -> str:
        paths = os.pathsep.join([str(self._programs), str(self.bin), os.environ["PATH"]])
        environment = {**os.environ, "PATH": paths, "PYTHONPATH": "/opt/flagrelease", **variables}
        done = subprocess.run(
            command,
            env=environment,
            cwd=folder or self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout


def command_line(words: Sequence[str]) -> str:
    """One argument a line, as golden files keep it."""
    return re.sub(r" (--)", r"\n  \1", shlex.join(words)) + "\n"


def _locked_blocks() -> list[str]:
    """The blocks of the cpu image's requirement lock that serving needs."""
    text = (ROOT / "images/cpu/requirements.lock").read_text("utf-8")
    blocks = re.findall(r"^[A-Za-z0-9._-]+==[^\n]*\n(?:    [^\n]*\n)*", text, flags=re.MULTILINE)
    return [block for block in blocks if block.partition("==")[0].lower() in NEEDED.split()]
