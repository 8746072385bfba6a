"""evalscope as an evaluator: it asks in an environment of its own, from a copy of the data; we read what it wrote."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.accuracy_result import ItemRow
from pipeline.benchmark import Evalscope
from pipeline.canonical import canonical, sha256_bytes, write_whole
from pipeline.errors import WorldError
from pipeline.world.benchmark_data import Item
from pipeline.world.command import run
from pipeline.world.data_folder import copy_folder
from pipeline.world.endpoint import Endpoint
from pipeline.world.evalscope_rows import listed_items, rows
from pipeline.world.evalscope_task import Sampling, environment, task_config
from pipeline.world.evaluator import Progress

DRIVER = Path(__file__).with_name("evalscope_driver.py")
REQUIREMENTS = Path(__file__).with_name("evalscope.lock")
NOWHERE = Endpoint(base_url="http://127.0.0.1:9", model="nobody")  # listing asks nobody
LIMIT_S = 48 * 3600
_ASKED = re.compile(r"Evaluating\[.*?(\d+)/(\d+)")


@dataclass(frozen=True, kw_only=True)
class EvalscopeBenchmark:
    """One benchmark of one cell. Calling it is one pass of one stack, with a working folder of its own."""

    name: str
    spec: Evalscope
    data: Path
    folder: Path  # for everything that is written
    python: Path  # of evalscope's environment: harness_python(REQUIREMENTS, …)

    def items(self, expected: int | None = None) -> tuple[Item, ...]:
        """What will be asked, in evalscope's order. Raises WorldError when it is another number of items."""
        work = self.folder / "listing"
        shutil.rmtree(work, ignore_errors=True)
        found = work / "items.jsonl"
        config = self._config(NOWHERE, work, Sampling(concurrency=1, seed=0, temperature=0))
        self._drive("list", work, config, items=found)
        listed = listed_items(self.name, found, self.spec.max_tokens)
        if not listed or (expected is not None and len(listed) != expected):
            raise WorldError(
                f"the data has {len(listed)} items, matrix.yaml expects {expected or 'some'}",
                where=str(self.data),
                hint=f"see that it is all of {self.spec.dataset}, or correct benchmarks.{self.name}.items",
            )
        return listed

    def __call__(
        self,
        endpoint: Endpoint,
        items: Sequence[Item],
        *,
        stack: str,
        concurrency: int,
        seed: int,
        repeat: int,
        temperature: float,
        progress: Progress,
    ) -> tuple[ItemRow, ...]:
        """Rows in the order of `items`. A pass that was ended is gone on with; a finished one is never read again."""
        work = self.folder / f"{stack}-repeat{repeat}"
        sampling = Sampling(concurrency=concurrency, seed=seed, temperature=temperature)
        config = self._config(endpoint, work, sampling)
        how = [config[name] for name in ("model", "dataset_args", "generation_config")]
        asked = [how, concurrency, [item.prompt for item in items]]
        unfinished, key = work.with_suffix(".unfinished"), sha256_bytes(canonical(asked)).encode()
        if unfinished.exists() and unfinished.read_bytes() == key and (work / "configs").is_dir():
            config["use_cache"] = str(work)
        else:
            shutil.rmtree(work, ignore_errors=True)
            write_whole(unfinished, key)
        self._drive("run", work, config, on_line=_teller(progress, stack))
        answered = rows(items, work, self.spec.task, stack=stack, seed=seed, repeat=repeat)
        unfinished.unlink()
        return answered

    def _config(self, endpoint: Endpoint, work: Path, sampling: Sampling) -> dict[str, Any]:
        return task_config(self.spec, endpoint, sampling, data=self._copy, work=work.resolve())

    @property
    def _copy(self) -> Path:
        return self.folder.resolve() / "data"

    def _drive(
        self,
        mode: str,
        work: Path,
        config: Mapping[str, Any],
        *,
        items: Path | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        task = {
            "config": config,
            "data": str(self._copy),
            "shape": self.spec.shape,
            "items": str(items) if items else None,
        }
        task_file = work / "task.json"
        write_whole(task_file, canonical(task))
        copy_folder(self.data, self._copy)
        caches = self.folder / "caches"
        try:
            run(
                [
                    self.python,
                    "-P",
                    DRIVER,
                    mode,
                    task_file,
                ],  # not: this folder has an evalscope.py too
                doing=f"evalscope, {mode} {self.name}",
                hint="its own log is in the folder's logs/; a request that failed ends the pass, run again to go on",
                log=work.with_suffix(".log"),
                environment=environment(caches.resolve()),
                on_line=on_line,
                timeout_s=LIMIT_S,
            )
        finally:
            shutil.rmtree(self._copy, ignore_errors=True)
            shutil.rmtree(caches, ignore_errors=True)


def _teller(progress: Progress, stack: str) -> Callable[[str], None]:
    def tell(line: str) -> None:
        if found := _ASKED.search(line):
            progress(stack, int(found[1]), int(found[2]))

    return tell
