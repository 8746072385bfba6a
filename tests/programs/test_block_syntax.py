"""What shellcheck, Docker's client and Python say of a card's commands before any is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cards.blocks import Block, code_blocks
from pipeline.stages.card import guide_blocks
from pipeline.world.block_syntax import docker_commands, syntax_faults
from pipeline.world.reader import DRIVER
from tests.matrix_cards import PROJECT, record_of

ROOT = Path(__file__).parents[2]
COMMITTED = sorted([*ROOT.glob("tests/golden/card*.md"), *ROOT.glob("records/**/card*.md")])


def faults(text: str, language: str = "bash") -> tuple[str, ...]:
    return syntax_faults([Block(language=language, text=text, section="s", line=10)])


@pytest.mark.parametrize("half", [0, 1])
def test_every_command_of_every_cell_of_the_matrix_is_sound(half: int) -> None:
    """Each text once, for cells share most of theirs; its `line` is a number of its own, so that a fault names it."""
    guides = ((cell, guide_blocks(record_of(cell), PROJECT.templates)) for cell in PROJECT.cells)
    first: dict[tuple[str, str], Block] = {}
    for cell, blocks in guides:
        assert len(blocks) > 10
        for block in blocks:
            known = replace(block, section=cell.id, line=1000 * len(first))
            first.setdefault((block.language, block.text), known)
    assert {block.section for block in first.values()} == {cell.id for cell in PROJECT.cells}
    assert syntax_faults(list(first.values())[half::2]) == ()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_every_committed_card_is_sound(path: Path) -> None:
    blocks = code_blocks(path.read_text("utf-8"))
    assert len(blocks) > 10
    assert syntax_faults(blocks) == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("echo ok\ncd $HOME/$X\n", "line 12: Double quote to prevent globbing"),
        ("if true; then\n", "line 11: "),
        (
            "docker run --detach --shm-size 4gx image sleep\n",
            'line 10: docker run: invalid argument "4gx"',
        ),
        ("docker run --gpu all image\n", "line 10: docker run: unknown flag: --gpu"),
        ("true && docker rm --froce x | cat\n", "line 10: docker rm: unknown flag: --froce"),
        ("docker pull 'a b'\n", "line 10: docker pull: invalid reference format"),
        ("cat > ask.py <<'EOF'\nx = 1\nprint(x\nEOF\n", "line 13: '(' was never closed (Python)"),
        ("docker exec c python - <<'EOF'\nx = = 1\nEOF\n", "line 12: invalid syntax (Python)"),
    ],
)
def test_a_fault_is_told_with_its_line_of_the_card(text: str, fault: str) -> None:
    found = faults(text)
    assert any(one.startswith(fault) for one in found), found


def test_a_python_block_is_parsed() -> None:
    assert faults("print(1)\n", "python") == ()
    assert faults("print(1\n", "python") == ("line 11: '(' was never closed (Python)",)


def test_all_faults_of_all_blocks_come_at_once() -> None:
    blocks = [
        Block(language="bash", text="docker run --gpu all image\n", section="s", line=1),
        Block(language="python", text="x = = 1\n", section="s", line=9),
    ]
    assert len(syntax_faults(blocks)) == 2


def test_what_is_no_command_is_not_looked_at() -> None:
    assert faults("{not: [python\n", "json") == ()


def test_arguments_end_at_a_redirection_a_pipe_and_a_here_document() -> None:
    text = (
        "docker run --rm \\\n  --volume a:b image < file\n"
        "docker exec c python - <<'EOF' | tail\ndocker nonsense\nEOF\n"
        "echo docker pull x\ncurl --data '{\n  \"a\": 1\n}'\ndocker rm --force c\n"
    )
    assert list(docker_commands(text)) == [
        ["docker", "run", "--rm", "--volume", "a:b", "image"],
        ["docker", "exec", "c", "python", "-"],
        ["docker", "rm", "--force", "c"],
    ]


def test_comments_are_no_part_of_a_command() -> None:
    text = "# the reader's own\ndocker pull a  # docker pull it's\n"
    assert list(docker_commands(text)) == [["docker", "pull", "a"]]


def test_quotes_may_hold_lines_and_a_line_ends_a_command() -> None:
    text = "curl --data '{\n  \"docker\": 1\n}'\ndocker pull a\ndocker pull b\n"
    assert list(docker_commands(text)) == [["docker", "pull", "a"], ["docker", "pull", "b"]]


def test_the_program_that_runs_the_blocks_is_sound_itself() -> None:
    assert faults(DRIVER.read_text("utf-8")) == ()
