"""A card's commands as they are run: what may differ from the print, and what is told of each."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pipeline.cards.blocks import Block, blocks_sha256, code_blocks
from pipeline.cards.facts import measured
from pipeline.cards.guide import image_reference
from pipeline.chip import Run
from pipeline.errors import StageRefusedError, WorldError
from pipeline.record import Record
from pipeline.rehearsal import RehearsedBlock, RehearseResult, Substitution
from pipeline.stages.card import card, guide_blocks
from pipeline.stages.rehearse import Staged, checked, failure, rehearse
from pipeline.world.engine import Engine
from pipeline.world.reader import Ran, Reader, Script, Visit
from pipeline.world.untidy import is_untidy
from tests.fakes import FakeEngine
from tests.projects import committed
from tests.record_parts import digest, passed
from tests.records import cpu_record, nvidia_record

TEMPLATES = committed().templates
STAGING = f"127.0.0.1:5000/flagrelease/staging/cpu/smollm2@{digest('cpu model manifest')}"
ENDED = Ran(exit_code=0, seconds=1.5, output="done\n")
NEVER = Ran(exit_code=None, seconds=0, output="")


@dataclass(frozen=True, kw_only=True)
class ToldReader(Reader):
    """Notes what it is given, and ends each block as `ends` tells by its text."""

    ends: Callable[[str], Ran] = lambda _: ENDED
    seen: dict[str, object] = field(default_factory=dict)

    def visit(
        self,
        scripts: Sequence[Script],
        *,
        name: str,
        volumes: Mapping[str, str],
        registry: str,
        limit_s: float,
    ) -> Visit:
        self.seen.update(
            texts=[script.text for script in scripts],
            volumes=dict(volumes),
            registry=registry,
        )
        ran, has_failed = list[Ran](), False
        for script in scripts:
            ended = NEVER if has_failed else self.ends(script.text)
            has_failed = has_failed or ended.exit_code != 0
            ran.append(ended)
        return Visit(machine="Debian 13", ran=tuple(ran))


def reader(
    engine: Engine | None = None, ends: Callable[[str], Ran] = lambda _: ENDED
) -> ToldReader:
    return ToldReader(
        engine=engine or FakeEngine(), arch="amd64", log=Path("log"), say=lambda _: None, ends=ends
    )


def staged(record: Record, folder: Path) -> Staged:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free_port = probe.getsockname()[1]
    return Staged(
        about=record.about.model_copy(update={"port": free_port}),
        root=folder,
        printed_image=image_reference(measured(record)),
        image=STAGING,
        registry="127.0.0.1:5000",
        weights=Path("/data/step3"),
        share=folder / "share",
    )


def rehearsed(
    record: Record, folder: Path, told: ToldReader | None = None
) -> tuple[RehearseResult, ToldReader]:
    told = told or reader()
    blocks = guide_blocks(record, TEMPLATES)
    place = staged(record, folder)
    return rehearse(blocks, place, told, name="cpu-smollm2-1", limit_s=1), told


def test_every_block_runs_as_printed_but_for_the_image_and_the_folder_of_the_weights(
    tmp_path: Path,
) -> None:
    record = cpu_record()
    result, told = rehearsed(record, tmp_path)
    printed = [block.text for block in guide_blocks(record, TEMPLATES)]
    public, share = image_reference(measured(record)), str(tmp_path / "share")
    assert told.seen["texts"] == [
        text.replace(public, STAGING).replace("/share:/share", f"{share}:/share")
        for text in printed
    ]
    assert told.seen["volumes"] == {share: "/share"}
    assert [block.text for block in result.blocks] == printed
    assert {block.status for block in result.blocks} == {"passed"}
    assert result.blocks[0].output == "done"
    assert (result.machine, result.why_not, failure(result)) == ("Debian 13", "", "")
    assert result.blocks_sha256 == blocks_sha256(guide_blocks(record, TEMPLATES))


def test_an_interrupted_run_waits_until_the_container_of_the_card_is_removed(
    tmp_path: Path,
) -> None:
    """It carries no label of ours: no later run would know whose it is."""
    seen = list[bool]()

    def ends(_: str) -> Ran:
        seen.append(is_untidy())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearsed(cpu_record(), tmp_path, reader(ends=ends))
    assert (seen, is_untidy()) == ([True], False)


def test_each_substitution_is_named_with_its_reason(tmp_path: Path) -> None:
    result, _ = rehearsed(cpu_record(), tmp_path)
    assert result.substitutions == (
        Substitution(kind="image", printed=image_reference(measured(cpu_record())), ran=STAGING),
        Substitution(kind="folder", printed="/share:/share", ran="share:/share"),
    )


def test_weights_of_a_hub_are_a_local_copy_that_nothing_can_write(tmp_path: Path) -> None:
    record = nvidia_record()
    result, told = rehearsed(record, tmp_path)
    assert told.seen["volumes"] == {"/data/step3": "/share/step3:ro"}
    texts = told.seen["texts"]
    assert isinstance(texts, list)
    assert not any("stepfun-ai/step3" in text for text in texts)
    (start,) = (text for text in texts if "sleep infinity" in text)
    assert "--volume /data/step3:/share/step3:ro" in start
    replaced = [block for block in result.blocks if block.status == "replaced"]
    assert replaced != []
    assert {one.printed for one in result.substitutions} >= {block.text for block in replaced}
    assert failure(result) == ""


def test_a_block_that_fails_is_told_with_its_output_and_ends_the_rehearsal(tmp_path: Path) -> None:
    broken = Ran(exit_code=22, seconds=0.1, output="curl: (22) 404\n")
    told = reader(ends=lambda text: broken if text.startswith("curl") else ENDED)
    result, _ = rehearsed(cpu_record(), tmp_path, told)
    states = [block.status for block in result.blocks]
    first = states.index("failed")
    assert states == [
        *["passed"] * first,
        "failed",
        *["not_run"] * (len(states) - first - 1),
    ]
    lines = failure(result).splitlines()
    assert lines[0] == f"block {first + 1} of {len(states)}, under 'curl', ended with exit code 22:"
    assert lines[1].startswith("    curl --fail --silent --show-error")
    assert lines[-2:] == ["It printed:", "curl: (22) 404"]


def test_a_block_that_never_ends_fails(tmp_path: Path) -> None:
    told = reader(ends=lambda text: NEVER if "flagscale serve" in text else ENDED)
    result, _ = rehearsed(cpu_record(), tmp_path, told)
    assert "ended never:" in failure(result)
    assert "(nothing)" in failure(result)


def test_how_this_machine_reaches_an_index_stays_out_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@index.test/simple")
    said = Ran(
        exit_code=0, seconds=1, output="Looking in indexes: https://me:secret@index.test/simple\n"
    )
    result, _ = rehearsed(cpu_record(), tmp_path, reader(ends=lambda _: said))
    assert result.blocks[0].output == "Looking in indexes: $PIP_INDEX_URL"


def test_a_container_of_the_same_name_is_refused_untouched(tmp_path: Path) -> None:
    engine = FakeEngine()
    with engine.container(
        "somebody:1", ["sleep", "infinity"], run=Run(), name="flagos", volumes={}
    ):
        with pytest.raises(WorldError, match="a container is called flagos"):
            rehearsed(cpu_record(), tmp_path, reader(engine))
        assert engine.has_container("flagos")


def test_what_a_killed_rehearsal_left_is_removed_but_not_what_another_one_uses(
    tmp_path: Path,
) -> None:
    engine = FakeEngine()
    left = engine.container(STAGING, ["sleep"], run=Run(), name="flagos", volumes={})
    other = engine.container("r", ["bash"], run=Run(), name="flagrelease-reader-x-1", volumes={})
    with left:
        with other, pytest.raises(WorldError, match="a container is called flagos"):
            rehearsed(cpu_record(), tmp_path, reader(engine))
        assert failure(rehearsed(cpu_record(), tmp_path, reader(engine))[0]) == ""
        assert not engine.has_container("flagos")


def test_a_taken_port_is_named_before_anything_runs(tmp_path: Path) -> None:
    record, told = cpu_record(), reader()
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = record.about.model_copy(update={"port": server.getsockname()[1]})
        place = staged(record.model_copy(update={"about": taken}), tmp_path)
        place = Staged(**{**place.__dict__, "about": taken})
        with pytest.raises(WorldError, match="is in use on this machine"):
            rehearse(guide_blocks(record, TEMPLATES), place, told, name="n", limit_s=1)
    assert told.seen == {}


def test_a_cell_that_cannot_be_rehearsed_keeps_the_hash_and_says_why() -> None:
    blocks = guide_blocks(cpu_record(), TEMPLATES)
    result = checked(blocks, "no network")
    assert (result.blocks_sha256, result.why_not) == (blocks_sha256(blocks), "no network")
    assert {block.status for block in result.blocks} == {"checked"}


def with_rehearsal(record: Record, sha256: str) -> Record:
    return record.with_stage("rehearse", passed(RehearseResult(blocks_sha256=sha256, blocks=())))


def test_card_refuses_other_commands_than_the_rehearsed_ones() -> None:
    record = cpu_record()
    rehearsed_sha256 = blocks_sha256(guide_blocks(record, TEMPLATES))
    assert card(with_rehearsal(record, rehearsed_sha256), TEMPLATES)
    with pytest.raises(StageRefusedError) as caught:
        card(with_rehearsal(record, "0" * 64), TEMPLATES)
    assert caught.value.message == "the commands of this card are not the rehearsed ones"
    assert caught.value.hint == "rehearse these: nox -s rehearse -- cpu smollm2"


OLD_STOP, NEW_STOP = "docker rm --force", "docker rm --volumes --force"


def with_other_stop(record: Record) -> Record:
    """Its rehearsal ran another last command of the user guide than the card prints now."""
    blocks = guide_blocks(record, TEMPLATES)
    assert any(OLD_STOP in block.text for block in blocks)
    ran = [replace(block, text=block.text.replace(OLD_STOP, NEW_STOP)) for block in blocks]
    result = RehearseResult(
        blocks_sha256=blocks_sha256(ran),
        blocks=tuple(
            RehearsedBlock(
                section=block.section, language=block.language, text=block.text, status="passed"
            )
            for block in ran
        ),
        machine="a machine",
    )
    return record.with_stage("rehearse", passed(result))


def test_cards_print_changed_commands_and_say_at_each_that_it_was_not_executed() -> None:
    record = with_other_stop(cpu_record())
    with pytest.raises(StageRefusedError, match="not the rehearsed ones"):
        card(record, TEMPLATES)
    files = card(record, TEMPLATES, admits_changes=True)
    notes = {
        "card.en.md": "*Changed since the rehearsal of 2026-11-24; not executed since.*",
        "card.zh.md": "*自 2026-11-24 的演练之后有改动，改动后没有执行过。*",
    }
    for name, note in notes.items():
        page = files[name].decode()
        assert page.count(note) == 1
        (block,) = [one for one in code_blocks(page) if OLD_STOP in one.text]
        assert page.splitlines()[block.lines.stop] == note
    english = files["card.en.md"].decode()
    blocks = len(code_blocks(english))
    assert f"on 2026-11-24: 1 of {blocks} were not executed as they are printed now" in english
    assert f"1 of {blocks} blocks were never executed in this form" in english
    assert (
        "Before they were changed, the commands of this page were executed as they were" in english
    )
    assert "executed as they are printed, in their order" not in english


def test_changed_commands_of_which_none_ran_are_not_called_rehearsed() -> None:
    record = with_other_stop(cpu_record())
    stage = record.stages.rehearse
    assert stage is not None
    checked_only = record.with_stage(
        "rehearse", stage.model_copy(update={"status": "not_applicable"})
    )
    page = card(checked_only, TEMPLATES, admits_changes=True)["card.en.md"].decode()
    assert "not rehearsed: written from the record, not executed from the page" in page
    assert "Changed since" not in page


def test_the_commands_do_not_depend_on_whether_they_were_rehearsed() -> None:
    record = cpu_record()
    before = guide_blocks(record, TEMPLATES)
    after = guide_blocks(with_rehearsal(record, blocks_sha256(before)), TEMPLATES)
    assert blocks_sha256(after) == blocks_sha256(before)


def test_a_block_of_no_known_language_is_no_command() -> None:
    blocks = [Block(language="json", text="{}\n", section="s", line=1)]
    assert checked(blocks, "why").blocks == ()
