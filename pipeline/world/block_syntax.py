"""What a look at a card's commands finds, before any is run: shellcheck, Python's parser, and Docker's own."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.cards.blocks import Block
from pipeline.world.command import run
from pipeline.world.scratch import scratch_folder

# A client that is sent there has parsed its arguments when it says that it cannot connect.
NO_ENGINE = {"DOCKER_HOST": "unix:///nonexistent"}
# With --device it asks the engine for its operating system instead.
CANNOT_CONNECT = ("Cannot connect to the Docker daemon", "unknown server OS")
ENDS_COMMAND = "();<>|&\n"
_HEREDOC = re.compile(r"^(.*)<<'?(\w+)'?.*\n((?:.*\n)*?)\2$", re.MULTILINE)
_COMMENT = re.compile(r"(^|[ \t])# .*$", re.MULTILINE)
_IS_PYTHON = re.compile(r"(\.py|\bpython3? -)\s*$")


def syntax_faults(blocks: Sequence[Block]) -> tuple[str, ...]:
    """One line a fault, with the line of the card. Raises WorldError where shellcheck or Docker's client is missing."""
    shell = [block for block in blocks if block.language == "bash"]
    return (
        *_shell_faults(shell),
        *(fault for block in shell for fault in _docker_faults(block)),
        *(fault for block in blocks for fault in _python_faults(block)),
    )


def _shell_faults(blocks: Sequence[Block]) -> Iterator[str]:
    """All blocks at once: starting shellcheck takes longer than its work."""
    if not blocks:
        return
    with scratch_folder() as folder:
        files = {str(folder / f"{number}.bash"): block for number, block in enumerate(blocks)}
        for name, block in files.items():
            Path(name).write_text(block.text, "utf-8")
        told = run(
            # SC1091: what a block sources is made by the blocks before it.
            ["shellcheck", "--format=json", "--shell=bash", "--exclude=SC1091", *files],
            doing="checking the card's commands",
            hint="./bootstrap installs what this project needs",
            answers=(0, 1),
        )
    for found in json.loads(told.output):
        at = files[found["file"]].line + found["line"]
        yield f"line {at}: {found['message']} (shellcheck SC{found['code']})"


def _docker_faults(block: Block) -> Iterator[str]:
    for words in docker_commands(block.text):
        told = run(
            words,
            doing="checking the card's commands",
            hint="./bootstrap installs Docker's client",
            environment=NO_ENGINE,
            answers=(0, 1, 125),
        )
        if told.exit_code != 0 and not any(text in told.output for text in CANNOT_CONNECT):
            said = told.output.strip().partition("\n")[0]
            yield f"line {block.line}: {' '.join(words[:2])}: {said}"


def docker_commands(text: str) -> Iterator[list[str]]:
    """Words of each command of a block that calls Docker's client, without redirections."""
    plain = _COMMENT.sub(r"\1", _HEREDOC.sub(r"\1", text)).replace("\\\n", " ")
    words = shlex.shlex(plain, posix=True, punctuation_chars=ENDS_COMMAND)
    words.whitespace, words.whitespace_split, words.commenters = " \t", True, ""
    command: list[str] = []
    for word in (*words, "\n"):
        if not set(word) <= set(ENDS_COMMAND):
            command.append(word)
        else:
            if command[:1] == ["docker"]:
                yield command
            command = []


def _python_faults(block: Block) -> Iterator[str]:
    for line, program in _programs(block):
        try:
            ast.parse(program)
        except SyntaxError as error:
            yield f"line {line + (error.lineno or 0)}: {error.msg} (Python)"


def _programs(block: Block) -> Iterator[tuple[int, str]]:
    """Python programs of a block, with the line of the card above each."""
    if block.language == "python":
        yield block.line, block.text
    for found in _HEREDOC.finditer(block.text) if block.language == "bash" else ():
        if _IS_PYTHON.search(found[1]):
            yield block.line + block.text.count("\n", 0, found.start(3)), found[3]
