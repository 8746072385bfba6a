"""The commands of the card of a finished release, run as its reader would, and one that does not work."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.cards.blocks import blocks_sha256, code_blocks
from pipeline.rehearsal import RehearseResult
from tests.integration.conftest import CELL, Checkout

pytestmark = pytest.mark.integration
COMMANDS = Path("templates/parts/card/commands.j2")


def rehearsal(checkout: Checkout) -> RehearseResult:
    stage = checkout.record().stages.rehearse
    assert stage is not None
    assert stage.result is not None
    return stage.result


def has_container(name: str) -> bool:
    listed = subprocess.run(
        ["docker", "ps", "--all", "--filter", f"name=^/{name}", "--format", "{{.Names}}"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return bool(listed.stdout.split())


def test_every_block_of_the_published_card_was_run_and_passed(released: Checkout) -> None:
    result = rehearsal(released)
    hub = released.root / "out" / "hub" / released.record().about.hub_name
    blocks = code_blocks((hub / "README.md").read_text("utf-8"))
    assert [block.text for block in result.blocks] == [block.text for block in blocks]
    assert result.blocks_sha256 == blocks_sha256(blocks)
    assert {(block.status, block.exit_code) for block in result.blocks} == {("passed", 0)}
    assert [one.kind for one in result.substitutions] == ["image", "folder"]
    assert result.machine.startswith("Debian GNU/Linux 13 (trixie), Docker version ")


def test_the_blocks_gave_what_their_reader_wants(released: Checkout) -> None:
    answers = [block.output for block in rehearsal(released).blocks]
    assert any(answer.endswith(": OK") for answer in answers)  # the weights are the measured ones
    assert "ready" in answers
    assert sum("Paris" in answer for answer in answers) >= 3  # Python, curl, and piece by piece


def test_a_rehearsal_leaves_no_container_and_an_empty_folder(released: Checkout) -> None:
    assert not has_container("flagos$")
    assert not has_container("flagrelease-reader-")
    assert list((released.root / "out" / "rehearsal" / "/".join(CELL)).iterdir()) == []


def test_a_block_that_fails_fails_the_release_and_is_shown(changed: Checkout) -> None:
    path = changed.root / COMMANDS
    text = path.read_text("utf-8")
    pull = "docker pull {{ guide.image }}\n"
    assert text.count(pull) == 1
    path.write_text(text.replace(pull, f"{pull}cat /a/folder/that/is/not/there\n"), "utf-8")
    ran = changed.run("release", *CELL)
    assert ran.code == 1, ran.output
    assert "ended with exit code 1:" in ran.output
    assert "    cat /a/folder/that/is/not/there" in ran.output
    assert "cat: /a/folder/that/is/not/there: No such file or directory" in ran.output
    assert "hint: mend the command in templates/parts/card/commands.j2" in ran.output
    states = [block.status for block in rehearsal(changed).blocks]
    first = states.index("failed")
    assert set(states[:first]) <= {"passed"}
    assert set(states[first + 1 :]) == {"not_run"}
    refused = changed.run("promote", *CELL)
    assert refused.code == 1, refused.output
    assert not has_container("flagrelease-reader-")


def test_a_command_that_cannot_work_is_refused_before_any_runs(changed: Checkout) -> None:
    path = changed.root / COMMANDS
    text = path.read_text("utf-8")
    path.write_text(text.replace("docker rm --force", "docker rm --forse"), "utf-8")
    ran = changed.run("rehearse", *CELL)
    assert ran.code == 1, ran.output
    assert "docker rm: unknown flag: --forse" in ran.output
    stage = changed.record().stages.rehearse
    assert stage is not None
    assert (stage.status, stage.result) == ("failed", None)
