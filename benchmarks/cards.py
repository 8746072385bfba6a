"""How long `nox -s cards` takes for 120 cells, as a whole process: reading, rendering, checking, comparing, writing.

    python -m benchmarks.cards

A folder with 12 chips × 10 models gets the committed record of cpu/smollm2 under each cell's name. Three runs: all
cards are new, nothing changed, a template was corrected.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from pipeline.record import Record, RecordStore, read_record
from tests.projects import TOY, toy_project

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "records/2026.11.25.101/cpu/smollm2/record.json"
CHIPS, MODELS = 12, 10
CORRECTED = ("## Performance", "## Speed")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many_cells(folder)
        for run, words in (
            ("all are new", ["cards"]),
            ("nothing changed", ["cards", "--check"]),
            ("a template was corrected", ["cards"]),
        ):
            if "corrected" in run:
                correct_templates(folder)
            seconds, worked, said = timed(folder, words)
            print(f"{seconds:.2f} s, {worked:.2f} s of them on a processor; {run}: {said}")


def many_cells(folder: Path) -> None:
    """A project with CHIPS × MODELS cells, each with a record that can have a card."""
    matrix = yaml.safe_load(TOY)
    chip, model = matrix["chips"]["abacus"], matrix["models"]["poet"]
    matrix["chips"] = {f"chip{number}": chip for number in range(CHIPS)}
    matrix["models"] = {
        f"model{number}": {**model, "title": f"{model['title']} {number}"}
        for number in range(MODELS)
    }
    matrix["cells"] = {}
    toy_project(folder)
    (folder / "matrix.yaml").write_text(yaml.safe_dump(matrix), "utf-8")
    record, store = read_record(RECORD), RecordStore(folder / "out")
    for chip_id in matrix["chips"]:
        for model_id in matrix["models"]:
            store.write(renamed(record, chip_id, model_id))


def renamed(record: Record, chip: str, model: str) -> Record:
    return record.model_copy(update={"cell": f"{chip}/{model}", "chip": chip, "model": model})


def correct_templates(folder: Path) -> None:
    path = folder / "templates/card.en.md.j2"
    path.write_text(path.read_text("utf-8").replace(*CORRECTED), "utf-8")


def timed(folder: Path, words: list[str]) -> tuple[float, float, str]:
    """Seconds, seconds on a processor, and the last line that was printed."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=True,
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, worked, done.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
