"""The project with the chip and the model that docs/add-a-chip.md and docs/add-a-model.md add."""

from __future__ import annotations

from pathlib import Path

from pipeline.project import Project
from tests.documents import edit_of, page
from tests.projects import ROOT, edited, link_templates, project_in

NODES = "# Machines without network"  # what follows the chips
# A vendor that is not there (SDK image, two compilers, numbered devices, half the memory of an H100), and its model.
CHIP, MODEL = (edit_of(page(f"docs/add-a-{what}.md")) for what in ("chip", "model"))


def grown(folder: Path) -> Project:
    text = (ROOT / "matrix.yaml").read_text("utf-8")
    blocks = ((NODES, f"{CHIP}\n{NODES}"), ("\ncells:\n", f"\n{MODEL}\ncells:\n"))
    (folder / "matrix.yaml").write_text(edited(text, *blocks), "utf-8")
    link_templates(folder)
    (folder / "images/serving").mkdir(parents=True)
    return project_in(folder)
