from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from pipeline.cells import select
from pipeline.chip import Exclusion
from pipeline.errors import PipelineError
from pipeline.matrix_file import read_matrix
from pipeline.matrix_patch import exclusion_patch, with_exclusions
from tests.projects import ROOT

CELL = "nvidia/smollm2"
SOFTMAX = {"softmax": Exclusion(why='mean KL 1.4, "garbage"', evidence="bisect-0123")}
ENTRY = {"why": 'mean KL 1.4, "garbage"', "evidence": "bisect-0123"}
HEAD = "# head\nproject: {a: 1}   # stays\n"

# The same exclusion reaches every way in which the place may be written, and nothing else changes.
PLACES = {
    "no cells": "chips: {}  # last\n",
    "cells without a value": "cells:   # of the product\nchips: {}\n",
    "cells empty": "cells: {}\nchips: {}\n",
    "no overrides": "cells:\n  exclude:\n    - {cell: cpu/step3, why: large}   # yes\n\n# tail\n",
    "overrides empty": "cells:\n  overrides: {}   # none yet\n  exclude: []\n",
    "overrides null": "cells:\n  overrides: ~\n",
    "another cell": "cells:\n  overrides:\n    cpu/smollm2:\n      env: {A: b}\n    # end\n\nchips: {}\n",
    "no operators": "cells:\n  overrides:\n    nvidia/smollm2:\n      env:\n        A: b # c\n",
    "exclude empty": "cells:\n  overrides:\n    nvidia/smollm2:\n      operators: {exclude: {}}  # x\n",
    "exclude in a block": (
        "cells:\n  overrides:\n    nvidia/smollm2:\n      operators:\n        exclude:\n"
        "          mm: {why: slow, evidence: r1}   # first\n"
        "          # last comment\n      # further out\nchips: {}\n"
    ),
    "exclude in a flow": (
        "cells:\n  overrides:\n"
        "    nvidia/smollm2: {operators: {exclude: {mm: {why: slow, evidence: r1},}}, env: {}}\n"
    ),
    "a text of several lines": "cells:\n  overrides:\n    cpu/smollm2:\n      env:\n        A: |\n"
    "          one\n          two\n\n# tail\n",
    "no newline at the end": "cells:\n  exclude: []",
}


@pytest.mark.parametrize("place", PLACES)
def test_an_exclusion_is_inserted_however_its_place_is_written(place: str) -> None:
    text = HEAD + PLACES[place]
    changed = with_exclusions(text, CELL, SOFTMAX)
    old, new = yaml.safe_load(text), yaml.safe_load(changed)
    excluded = new["cells"]["overrides"][CELL]["operators"]["exclude"]
    assert excluded.pop("softmax") == ENTRY
    assert set(excluded) <= {"mm"}
    assert {**new, "cells": 0} == {**old, "cells": 0}
    comments = [word for word in text.split("\n") if "#" in word]
    assert all(f"# {word.partition('# ')[2]}" in changed for word in comments)


@pytest.mark.parametrize("place", PLACES)
def test_git_applies_the_patch(place: str, tmp_path: Path) -> None:
    text = HEAD + PLACES[place]
    applied = apply(text, exclusion_patch(text, CELL, SOFTMAX), tmp_path)
    assert applied == with_exclusions(text, CELL, SOFTMAX)


def test_the_committed_matrix_takes_the_patch_and_the_cell_excludes_the_operators(
    tmp_path: Path,
) -> None:
    text = (ROOT / "matrix.yaml").read_text("utf-8")
    two = {**SOFTMAX, "index_put_": Exclusion(why="fails with softmax", evidence="bisect-0123")}
    (before,) = select(read_matrix(ROOT / "matrix.yaml"), ["nvidia", "smollm2"])
    changed = apply(text, exclusion_patch(text, CELL, two), tmp_path)
    (cell,) = select(read_matrix(tmp_path / "matrix.yaml"), ["nvidia", "smollm2"])
    assert cell.excluded_operators("flagos") == {**before.excluded_operators("flagos"), **two}
    kept = [line for line in changed.splitlines() if line in text.splitlines()]
    assert kept == text.splitlines()


def test_an_operator_that_is_excluded_already_keeps_its_reason() -> None:
    text = with_exclusions(HEAD, CELL, SOFTMAX)
    again = {"softmax": Exclusion(why="another", evidence="bisect-4567")}
    assert exclusion_patch(text, CELL, again) == ""


def test_words_that_yaml_reads_otherwise_are_quoted() -> None:
    changed = with_exclusions(HEAD, CELL, {"on": SOFTMAX["softmax"], "a: b": SOFTMAX["softmax"]})
    excluded = yaml.safe_load(changed)["cells"]["overrides"][CELL]["operators"]["exclude"]
    assert set(excluded) == {"on", "a: b"}


def test_a_form_that_takes_no_insertion_is_refused_with_the_lines_to_add() -> None:
    text = "base: &base\n  overrides: {}\ncells: *base\n"
    with pytest.raises(PipelineError) as caught:
        with_exclusions(text, CELL, SOFTMAX)
    assert str(caught.value) == (
        "cells.overrides.nvidia/smollm2.operators.exclude: "
        "the exclusions cannot be inserted into the file as it is written\n"
        "cells:\n  overrides:\n    nvidia/smollm2:\n      operators:\n        exclude:\n"
        '          softmax: {why: "mean KL 1.4, \\"garbage\\"", evidence: "bisect-0123"}\n\n'
        "hint: add these lines by hand"
    )


def apply(text: str, patch: str, folder: Path) -> str:
    path = folder / "matrix.yaml"
    path.write_text(text, encoding="utf-8")
    subprocess.run(["git", "apply", "-"], input=patch.encode(), cwd=folder, check=True)
    return path.read_text("utf-8")
