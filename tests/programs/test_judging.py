"""`pipeline gate`: stored rows judged again, with nothing but files."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.accuracy_result import AccuracyResult, ItemRow
from pipeline.canonical import sha256_bytes
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.gate.paired import tango_lower_bound, z_of
from pipeline.gate.spending import look_level
from pipeline.gate.verdict import judge
from pipeline.judging import with_changes
from pipeline.policy import Gate
from pipeline.record import Record
from pipeline.rows import lines
from tests.gate_rows import rows_of_scores
from tests.projects import ROOT, one_cell, toy_project
from tests.record_parts import accuracy_of, passed, verdict_row
from tests.records import cpu_record

RELEASE = "2026.11.24.1"
ROWS = tuple(
    row.model_copy(update={"stack": {"float32": "slow", "bfloat16": "fast"}[row.stack]})
    for row in rows_of_scores(
        "quiz",
        [[1.0]] * 60 + [[0.0]] * 40,
        [[0.0]] * 2 + [[1.0]] * 59 + [[0.0]] * 39,
    )
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the rows and the record of one release of abacus/poet."""
    store(tmp_path, toy_project(tmp_path).store.folder(RELEASE, "abacus", "poet"), ROWS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def store(root: Path, at: Path, rows: tuple[ItemRow, ...]) -> None:
    project = toy_project(root)
    cell = one_cell(project, "abacus", "poet")
    data = lines(rows)
    at.mkdir(parents=True)
    (at / "items.jsonl").write_bytes(data)
    invented = accuracy_of(
        ("slow", "fast"), verdict_row("quiz", 100, (60, 59), (2, 1), (0, 0), 0.25)
    )
    result: AccuracyResult = invented.model_copy(
        update={
            "verdict": judge(
                rows, reference="slow", candidate="fast", gate=cell.gate, chance={"quiz": 0.25}
            ),
            "items_sha256": sha256_bytes(data),
            "chance": {"quiz": 0.25},
        }
    )
    about = cpu_record().about
    record = Record(cell=cell.id, chip="abacus", model="poet", release=RELEASE, about=about)
    project.store.write(record.with_stage("accuracy", passed(result)))


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    output = io.StringIO()
    code = main(["gate", "abacus", "poet", *words], Console(file=output, width=200))
    return code, output.getvalue(), capsys.readouterr().err


def test_stored_rows_are_judged_under_the_policy_of_the_matrix(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    code, output, error = run(capsys=capsys)

    assert (code, error) == (0, "")
    assert output.splitlines()[0].startswith(f"abacus/poet {RELEASE}, policy ")
    level = look_level(0.05, (1, 2, 4))
    low = 100 * float(tango_lower_bound(2, 1, 100, z_of(level)))
    high = -100 * float(tango_lower_bound(1, 2, 100, z_of(level)))
    assert output.splitlines()[2].split() == [
        *("quiz", "100", "1", "60.00", "59.00", "-1.00"),
        *(f"{low:+.2f}", "…", f"{high:+.2f}", "10.0", "2", "1", "0.5", "pass"),
    ]
    assert output.splitlines()[-1].startswith(
        "pass: fast is not worse than slow by more than 10.0 points on quiz (100 items; "
    )
    assert sorted(folder.rglob("*")) == before


def test_another_policy_changes_only_the_keys_it_names(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "other.yaml").write_text("gate:\n  margin: 0.02\n", "utf-8")
    code, output, error = run("--policy", "other.yaml", capsys=capsys)

    assert code == 5
    assert "margin 2.0" in output.splitlines()[-1]
    assert error.startswith("error: gate of abacus/poet: inconclusive: fast may be worse")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("margin: 3\n", "margin: expected a number from 0 to 1, got 3"),
        ("marge: 0.1\n", "marge: Extra inputs are not permitted, got 0.1"),
        ("looks: [2, 1]\n", "looks: expected rising numbers of runs, like [1, 2, 4], got [2, 1]"),
    ],
)
def test_a_wrong_policy_is_told_with_its_key(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, fault: str
) -> None:
    (folder / "other.yaml").write_text(text, "utf-8")
    code, _, error = run("--policy", "other.yaml", capsys=capsys)

    assert code == 2
    assert fault in error


def test_rows_that_were_imported_before_files_had_a_source_decide_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "matrix.yaml"
    text = path.read_text("utf-8")
    start, end = text.index("      builtin:"), text.index("chips:\n")
    other = "      imported: {format: inspect, task: quiz, folder: quiz, file: log.json}\n"
    path.write_text(text[:start] + other + text[end:], "utf-8")
    code, output, _ = run(capsys=capsys)

    assert code == 5
    assert output.splitlines()[-1].endswith("no benchmark of the policy decides, all are advisory")
    assert "its rows were stored before result files had a source" in output


def test_rows_that_were_changed_are_not_judged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "out" / RELEASE / "abacus/poet/items.jsonl").open("ab") as file:
        file.write(b"{}\n")
    code, _, error = run(capsys=capsys)

    assert code == 1
    assert "the rows that this verdict was made of are not there" in error


@pytest.mark.usefixtures("folder")
def test_a_cell_without_rows_is_told_how_to_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--release", "2026.1.1.1", capsys=capsys) == (
        1,
        "",
        "error: gate of abacus/poet: no rows are stored of 2026.1.1.1\n"
        "hint: run nox -s accuracy -- abacus poet\n",
    )


@pytest.mark.usefixtures("folder")
def test_judging_again_needs_no_docker_no_network_library_and_no_scipy() -> None:
    program = (
        "import sys; from pipeline.cli import main; code = main(['gate', 'abacus', 'poet']); "
        "print([n for n in ('docker', 'requests', 'scipy') if n in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.stdout.splitlines()[-1] == "[] 0"


def test_a_policy_is_stored_whole() -> None:
    gate = Gate(alpha=0.05, margin=0.08, power_margins=1, concurrency=4, seed=0)

    assert Gate.model_validate_json(json.dumps(gate.model_dump(mode="json"))) == gate


def test_a_policy_that_would_have_asked_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("margin: 0.05\ntemperature: 0.9\nlogits: {warn_margin: 0.1}\n")
    gate = Gate(alpha=0.05, margin=0.03, power_margins=1, concurrency=1, seed=0)
    with pytest.raises(UsageError, match="logits, temperature decide what the stacks are asked"):
        with_changes(gate, path)
