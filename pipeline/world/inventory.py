"""What is in an image, read by a program inside of it: the package databases, not the recipe."""

from __future__ import annotations

import threading
from pathlib import Path

from pipeline.chip import Run
from pipeline.errors import WorldError
from pipeline.sbom import Inventory
from pipeline.world.engine import Engine

READER = Path(__file__).with_name("inventory_inside.py")


def read_inventory(engine: Engine, image: str) -> Inventory:
    """Raises WorldError when the image has no Python that can say it."""
    engine.pull(image)
    code, output = engine.run_once(
        image,
        ["python3", "-I", "-S", "-c", READER.read_text("utf-8")],
        run=Run(network="none"),
        name=f"flagrelease-inventory-{threading.get_native_id()}",
        volumes={},
    )
    last = output.strip().rpartition("\n")[2]  # vendors' images greet before
    try:
        if code == 0:
            return Inventory.model_validate_json(last)
    except ValueError:
        pass
    raise WorldError(
        f"its packages could not be read: exit code {code}",
        where=image,
        details=output[-2000:],
        hint="the image needs a python3 on its PATH",
    )
