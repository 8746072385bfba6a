"""A held card, as a stand-in for the tool tells it in the CSV form of nvidia-smi: no busy GPU was at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.chip import Smi
from pipeline.doctor import machine_checks
from pipeline.errors import WorldError
from pipeline.serve import card_share
from pipeline.world import device_memory
from pipeline.world.device_memory import CardShare, card_memory, refuse_busy_cards
from pipeline.world.engine import Engine
from tests.projects import committed, one_cell

HELD = "4711, python3, 75426 MiB\n"
BUSY = "5120, 81559\n80994, 81559\n"
FREE = "81038, 81559\n80994, 81559\n"


class Tool:
    """`nvidia-smi` in a folder of its own: prints what the files beside it hold, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "nvidia-smi"
        self.program.write_text(
            "#!/bin/bash\n"
            f"cd {folder}\n"
            'case "$*" in\n'
            "    *query-gpu=memory.free,memory.total*nounits*) cat memory; mv -f later memory 2>/dev/null || true ;;\n"
            "    *query-compute-apps=*) cat holders ;;\n"
            "    -L) echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)' ;;\n"
            "    *) exit 6 ;;\n"
            "esac\n"
        )
        self.program.chmod(0o755)
        (folder / "holders").write_text(HELD)

    def says(self, memory: str, later: str = "") -> None:
        (self.folder / "memory").write_text(memory)
        if later:
            (self.folder / "later").write_text(later)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(device_memory, "PATIENCE_S", 0.0)
    monkeypatch.setattr(device_memory, "POLL_S", 0.01)
    return Tool(tmp_path)


def smi() -> Smi:
    found = one_cell(committed(), "nvidia", "smollm2").chip.smi
    assert found is not None
    return found


def share(*cards: int, part: float = 0.9) -> CardShare:
    return CardShare(smi=smi(), cards=cards, share=part)


def test_a_busy_card_is_refused_with_its_memory_and_who_holds_it(tool: Tool) -> None:
    tool.says(BUSY)
    with pytest.raises(WorldError) as refused:
        refuse_busy_cards(share(0, 1))
    assert str(refused.value) == (
        f"{smi().memory}: the device is busy: card 0 has 5.0 of 79.6 GiB free, and 71.7 are wanted\n"
        f"{smi().holders}:\n4711, python3, 75426 MiB\n"
        "hint: end what holds it, or lower gpu_memory_utilization of the cell; then run the same command again"
    )


def test_a_card_that_is_free_enough_is_not_refused(tool: Tool) -> None:
    tool.says(BUSY)
    refuse_busy_cards(share(1))
    refuse_busy_cards(share(0, part=0.06))


def test_a_card_that_is_given_back_in_time_is_waited_for(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_memory, "PATIENCE_S", 20.0)
    tool.says(BUSY, later=FREE)
    refuse_busy_cards(share(0))


@pytest.mark.parametrize("printed", ["", "[N/A], [N/A]\n", "NVIDIA-SMI has failed\n"])
def test_a_tool_that_does_not_tell_refuses_nothing(tool: Tool, printed: str) -> None:
    tool.says(printed)
    assert card_memory(smi()) == ()
    refuse_busy_cards(share(0))


def test_where_the_tool_or_the_engine_is_elsewhere_nobody_is_asked(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.says(BUSY)
    monkeypatch.setenv("DOCKER_HOST", "ssh://node")
    assert card_memory(smi()) == ()
    monkeypatch.delenv("DOCKER_HOST")
    tool.program.unlink()
    assert card_memory(smi()) == ()


def test_doctor_says_who_holds_a_card(tool: Tool) -> None:
    tool.says(BUSY)

    def engine() -> Engine:
        raise WorldError("no engine here")

    cell = one_cell(committed(), "nvidia", "smollm2")
    found = {check.name: check for check in machine_checks([cell], engine, are_named=True)}
    devices = found["devices of nvidia"].found()
    assert (devices.state, devices.seen) == (
        "wrong",
        "NVIDIA H100 80GB HBM3; card 0 has 5.0 of 79.6 GiB free, and 71.7 are wanted",
    )
    assert devices.to_do.endswith(HELD.strip())


def test_a_stack_takes_its_share_of_the_cards_that_it_serves_on() -> None:
    taken = card_share(one_cell(committed(), "nvidia", "step3"), "flagos")
    assert taken is not None
    assert (taken.cards, taken.share) == (tuple(range(8)), 0.95)
    assert card_share(one_cell(committed(), "cpu", "smollm2"), "float32") is None
