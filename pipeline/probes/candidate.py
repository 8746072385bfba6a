"""The stack that is searched: served as it is released, but with some of its library's operators off."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.cell import Cell
from pipeline.chip import Exclusion, Operators, OperatorSwitch
from pipeline.errors import StageRefusedError
from pipeline.results import Frozen
from pipeline.serve import launch
from pipeline.stages.render import render_model
from pipeline.templates import Templates
from pipeline.world.device_memory import CardShare
from pipeline.world.engine import Engine
from pipeline.world.node import driver_in
from pipeline.world.server import Served, serving

Enabled = frozenset[str]
PROBE = {"FLAGRELEASE_OPERATORS_PROBE": "1"}  # the workers' hook then serves with none on, too
# Several engines on one GPU: with fixed cache memory their starts do not disturb each other's measuring of it.
SHARED_GPU = {"gpu_memory_utilization": 0.1, "kv_cache_memory_bytes": 2 << 30}


# Without a server: one that an operator kills could not tell.
_LIST = """
import importlib, json, platform, re, sys
from importlib.metadata import distributions
operators = sorted(importlib.import_module(sys.argv[1]).available())
packages = {re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower(): found.version for found in distributions()}
print(json.dumps({"operators": operators, "packages": {**packages, "python": platform.python_version()}}))
"""


class Library(Frozen):
    """Every operator that can be registered on this node, and what they are registered into."""

    operators: tuple[str, ...]
    packages: Mapping[str, str]  # of the image, with its Python
    driver: str = ""  # of the chip on this node


def library_in(engine: Engine, image: str, cell: Cell, stack: str) -> Library:
    """Ask the image itself. Raises StageRefusedError when the library cannot be imported there."""
    switch = switch_of(cell, stack)
    variables = [f"{name}={value}" for name, value in cell.environment(stack).items()]
    name = f"flagrelease-{cell.chip_id}-{cell.model_id}-operators-{os.getpid()}"
    with engine.container(
        image, ["sleep", "infinity"], run=cell.run, name=name, volumes={}
    ) as container:
        code, output = container.execute(["env", *variables, "python", "-c", _LIST, switch.library])
        _, cards = container.execute(cell.chip.smi.command.split()) if cell.chip.smi else (0, "")
    try:
        found = Library.model_validate_json(output.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        raise StageRefusedError(
            f"the operators of {switch.library} could not be listed: exit code {code}",
            where=image,
            details="\n".join(output.splitlines()[-20:]),
            hint="the library must be importable in the image, on this node",
        ) from error
    return found.model_copy(update={"driver": driver_in(cards) or ""})


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The stack that is searched, and what serves it."""

    cell: Cell
    stack: str
    image: str  # by digest
    operators: Enabled  # every one that the library can register
    share: Path
    templates: Templates
    engine: Engine
    folder: Path  # for what probes are configured with
    width: int = 1  # probes side by side
    gpus: int = 1
    volumes: Mapping[str, str] = field(default_factory=dict)  # more of them: folder here → inside
    kernels: Path | None = None  # compiled and tuned before; None: a folder for each slot

    def mounting(self, volumes: Mapping[str, str]) -> Candidate:
        return replace(self, volumes={**self.volumes, **volumes})

    @contextmanager
    def served(
        self, enabled: Enabled, slot: int, environment: Mapping[str, str] | None = None
    ) -> Iterator[Served]:
        """From its start to its end; raises StageRefusedError when it never gets ready."""
        cell = probe_cell(
            self.cell, self.stack, self.operators - enabled, slot=slot, shares_gpu=self._shares_gpu
        )
        conf = write_conf(cell, self.templates, self.folder / f"slot{slot}")
        # What one probe has compiled, the next in its slot need not.
        kernels = self.kernels or self.folder / f"kernels{slot}"
        started = launch(cell, self.stack, self.image, self.share, kernels)
        variables = {**PROBE, **self._gpu(slot), **(environment or {})}
        run = started.run
        started = replace(
            started,
            name=f"{started.name}-probe{slot}",
            volumes={
                **started.volumes,
                **self.volumes,
                str(conf): f"{cell.conf_folder}:ro",
            },
            run=run.model_copy(update={"environment": {**run.environment, **variables}}),
            takes=self._takes(started.takes, slot),
        )
        with serving(self.engine, started, lambda _: None) as served:
            yield served

    @property
    def _shares_gpu(self) -> bool:
        return self.cell.chip.smi is not None and self.width > 1

    @property
    def _has_several(self) -> bool:
        return self.cell.chip.smi is not None and self.gpus > 1

    def _gpu(self, slot: int) -> dict[str, str]:
        variable = self.cell.chip.visible.process
        return {variable: str(slot % self.gpus)} if self._has_several and variable else {}

    def _takes(self, share: CardShare | None, slot: int) -> CardShare | None:
        its_own = (slot % self.gpus,)
        return replace(share, cards=its_own) if share and self._has_several else share


def write_conf(cell: Cell, templates: Templates, folder: Path) -> Path:
    """The cell's serving configuration, to be mounted over the image's own; where it is."""
    inside = f"images/{cell.id}/conf/"
    for path, content in render_model(cell, templates).items():
        if path.startswith(inside):
            write_whole(folder / path.removeprefix(inside), content)
    return folder.resolve()


def probe_cell(cell: Cell, stack: str, off: Enabled, *, slot: int, shares_gpu: bool) -> Cell:
    """The cell as it is released, but without exactly these operators, and on a port of its own.

    The cell's own port is left to what is served beside a search.
    """
    exclude = {name: Exclusion(why="off in this probe", evidence="bisect") for name in sorted(off)}
    switch = switch_of(cell, stack).model_copy(update={"include": [], "exclude": exclude})
    changed = cell.chip.stacks[stack].model_copy(update={"operators": switch})
    serve = {**cell.override.serve, **(SHARED_GPU if shares_gpu else {})}
    return replace(
        cell,
        chip=cell.chip.model_copy(update={"stacks": {**cell.chip.stacks, stack: changed}}),
        model=cell.model.model_copy(update={"port": cell.model.port + 1 + slot}),
        override=cell.override.model_copy(update={"operators": Operators(), "serve": serve}),
    )


def switch_of(cell: Cell, stack: str) -> OperatorSwitch:
    found = cell.chip.stacks[stack].operators
    if found is None:
        raise StageRefusedError(
            f"the stack {stack} loads no operator library, so there is nothing to search",
            where=f"chips.{cell.chip_id}.stacks.{stack}",
            hint="name a stack that has `operators:` with --stack",
        )
    return found
