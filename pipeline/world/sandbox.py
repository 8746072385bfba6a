"""Runs code that a model wrote, in a container without network, rights or a disk it could write."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.chip import Run
from pipeline.errors import WorldError
from pipeline.world.engine import Engine
from pipeline.world.engine_container import Limits

RUNNER = Path(__file__).with_name("sandbox_runner.py")
NOBODY = "65534:65534"
LIMITS = Limits(memory_bytes=4 << 30, processes=256, scratch_bytes=256 << 20)
CPU_S = 10  # of one program; wall time is three times that, for a busy machine


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """Programs of one image. Calling it gives, for each program, "passed" or what happened instead."""

    engine: Engine
    image: str
    limits: Limits = LIMITS
    cpu_s: int = CPU_S

    def __call__(self, programs: Sequence[str]) -> tuple[str, ...]:
        """Raises WorldError when the container does not give one outcome for each program."""
        with tempfile.TemporaryDirectory(prefix="flagrelease-sandbox-") as folder:
            self._write(Path(folder), programs)
            code, output = self.engine.run_once(
                self.image,
                ["python3", "-I", "/work/runner.py"],
                run=Run(network="none"),
                name=f"flagrelease-sandbox-{threading.get_native_id()}",
                volumes={folder: "/work:ro"},
                user=NOBODY,
                limits=self.limits,
            )
        return self._outcomes(code, output, len(programs))

    def _write(self, folder: Path, programs: Sequence[str]) -> None:
        task = {"cpu_s": self.cpu_s, "programs": list(programs)}
        (folder / "task.json").write_text(json.dumps(task), "utf-8")
        (folder / "runner.py").write_bytes(RUNNER.read_bytes())
        folder.chmod(0o755)  # nobody inside has to read it

    def _outcomes(self, code: int, output: str, count: int) -> tuple[str, ...]:
        last = output.strip().rpartition("\n")[2]
        try:
            outcomes = json.loads(last) if code == 0 else None
        except ValueError:
            outcomes = None
        if not isinstance(outcomes, list) or len(outcomes) != count:
            raise WorldError(
                f"expected the outcomes of {count} programs, got exit code {code}",
                where=f"running generated code in {self.image}",
                details=output[-2000:],
                hint="the image needs python3 on its PATH; out of memory ends the container too",
            )
        return tuple(str(outcome) for outcome in outcomes)
