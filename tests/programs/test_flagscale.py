"""Every serve file of the matrix, read by FlagScale 0.8.0 itself, and the `vllm serve` line that comes out of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cell import Cell
from pipeline.stages.render import flagscale_arguments
from tests.projects import ROOT, committed, one_cell
from tests.real_flagscale import FlagScale, command_line

PROJECT = committed()
GOLDEN = ROOT / "tests/golden/serve"


@pytest.fixture(scope="module")
def flagscale(tmp_path_factory: pytest.TempPathFactory) -> FlagScale:
    return FlagScale(tmp_path_factory.mktemp("flagscale"))


def asked(cell: Cell, stack: str) -> list[str]:
    """What the matrix asks of the server, as words of a command line."""
    first = {"served_model_name": cell.served_name, "host": "0.0.0.0", "port": cell.model.port}
    words = ["vllm", "serve", cell.weights_path]
    arguments = flagscale_arguments(cell.serve_arguments(stack))
    for name, value in [*first.items(), *sorted(arguments.items())]:
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def test_every_serve_file_becomes_the_line_that_the_matrix_asks_for(flagscale: FlagScale) -> None:
    wanted = {
        ROOT / "images" / cell.id / "conf" / cell.experiment_file(stack): asked(cell, stack)
        for cell in PROJECT.cells
        for stack in cell.stacks
    }
    committed_files = {*ROOT.glob("images/*/*/conf/serve*.yaml")}
    assert committed_files == set(wanted)
    found = flagscale.lines(sorted(wanted))
    assert {path: list(words) for path, words in found.items()} == wanted


@pytest.mark.parametrize(
    ("cell_id", "stack"),
    [
        ("nvidia/step3", "flagos"),
        ("metax/minicpm-v-4", "flagos"),
        ("ascend/qwen3-next-80b-a3b", "native"),
    ],
)
def test_flagscale_serve_starts_vllm_with_this_line(
    flagscale: FlagScale, cell_id: str, stack: str
) -> None:
    _, words = flagscale.serve(one_cell(PROJECT, cell_id), stack)
    golden = GOLDEN / f"{cell_id.replace('/', '.')}.{stack}.txt"
    assert command_line(words) == golden.read_text("utf-8")
    for structured in (word for word in words if word.startswith("{")):
        json.loads(structured)


def test_a_stack_with_another_compiler_finds_it_before_the_images_own(flagscale: FlagScale) -> None:
    cell = one_cell(PROJECT, "ascend/qwen3-next-80b-a3b")
    native, _ = flagscale.serve(cell, "native")
    flagos, _ = flagscale.serve(cell, "flagos")
    assert native.startswith("/opt/flagrelease:/opt/compilers/triton:")
    assert "/opt/compilers" not in flagos, (
        "the image's own path has the compiler of its released stack"
    )


def test_the_shell_in_which_flagscale_starts_vllm_reads_what_bash_env_names(
    flagscale: FlagScale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How images of ascend and hygon give that process the SDK's variables, which otherwise only login shells have."""
    hygon, ascend = (one_cell(PROJECT, chip, "qwen3-4b") for chip in ("hygon", "ascend"))
    assert hygon.chip.image_env == {"BASH_ENV": "/opt/dtk-26.04/env.sh"}
    assert ascend.chip.image_env == {"BASH_ENV": "/usr/local/Ascend/cann/set_env.sh"}
    sourced, log = tmp_path / "env.sh", tmp_path / "log"
    sourced.write_text(f'echo "$0" >> {log}\n')
    monkeypatch.setenv("BASH_ENV", str(sourced))
    flagscale.serve(hygon, "flagos")
    first = log.read_text().split()[0]
    assert first.endswith("/serve_logs/scripts/host_0_localhost_run.sh")


def values() -> Iterator[tuple[str, str]]:
    for cell in PROJECT.cells:
        for stack in cell.stacks:
            yield from ((f"{cell.id} {stack} {k}", v) for k, v in cell.environment(stack).items())


def test_no_variable_has_what_flagscales_start_script_breaks_on() -> None:
    """It joins `KEY=value` into a command: a value that a shell would have to quote becomes a command of its own."""
    assert [where for where, value in values() if shlex.quote(value) != value] == []
