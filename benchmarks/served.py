"""One stack of the newest image that this machine built, served for a measurement that is no stage.

    node/start python my_measurement.py        # on a node without network; elsewhere just python

with served_stack("flagos", "nvidia", "smollm2", node="h100", environment={"USE_FLAGGEMS": "1"}) as endpoint:
    ...                                        # an OpenAI server at endpoint.base_url, called endpoint.model
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.cells import select
from pipeline.errors import StageRefusedError
from pipeline.project import Project
from pipeline.serve import launch
from pipeline.world.endpoint import Endpoint
from pipeline.world.engine import Engine
from pipeline.world.server import serving


@contextmanager
def served_stack(
    stack: str,
    chip: str,
    model: str,
    *,
    node: str | None = None,
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    engine_arguments: Mapping[str, Any] | None = None,
) -> Iterator[Endpoint]:
    """Several may run at once on ports of their own. Arguments come on top of the stack's own ones."""
    project = Project(Path.cwd(), Path("matrix.yaml"), node)
    (cell,) = select(project.matrix, [f"{chip}/{model}"])
    images = [record.image for record in project.past([cell])[cell.id] if record.image]
    if not images:
        raise StageRefusedError(
            "no image was built here", where=cell.id, hint=f"nox -s build -- {chip} {model}"
        )
    started = launch(cell, stack, images[0].config_digest, project.share)
    port = port or started.port
    words = ("--port", str(port), "--engine-args", json.dumps(dict(engine_arguments or {})))
    changed = replace(
        started,
        name=f"{started.name}-{port}",
        port=port,
        command=(*started.command, *words),
        run=started.run.model_copy(
            update={"environment": {**started.run.environment, **(environment or {})}}
        ),
    )
    with serving(Engine.connect(), changed, print) as served:
        yield Endpoint(base_url=served.base_url, model=cell.served_name)
