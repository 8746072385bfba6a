"""The command line: what it prints when something is wrong, and its exit codes."""

from __future__ import annotations

import gc
import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from pipeline import release as flow_module
from pipeline import stage_run
from pipeline.arguments import options_of
from pipeline.cli import main
from pipeline.commands import COMMANDS
from pipeline.errors import InconclusiveError, StageRefusedError, WorldError
from pipeline.options import Options
from pipeline.record import STAGES, StageName
from pipeline.tombstones import tombstone_beside
from pipeline.world import harbor
from pipeline.world.engine import Engine
from tests.fakes_registry import push_image
from tests.projects import edited, one_cell, project_in, toy_project
from tests.record_parts import sha256
from tests.releases import RELEASE, Flow

PUBLIC = (
    "targets:\n",
    "targets:\n  world: {registry: public.test/toys, hubs: [{folder: out/world}], public_key: world.pub}\n"
    "  nobody: {registry: public.test/toys}\n",
)


CONNECT = Engine.connect


def no_engine() -> Engine:
    raise WorldError("the container engine does not answer")


class CommandLine:
    """Runs commands in a project folder on a machine without an engine."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, what was printed, and what went to standard error."""
        output = io.StringIO()
        self._capsys.readouterr()
        code = main(words, Console(file=output, width=200))
        printed = self._capsys.readouterr()
        return code, output.getvalue() + printed.out, printed.err


@pytest.fixture
def line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    toy_project(tmp_path, PUBLIC)
    pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    (tmp_path / "world.pub").write_text(pem)  # nothing here gets so far as to use it
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    made = CommandLine(tmp_path, capsys)
    monkeypatch.setattr(Engine, "connect", no_engine)
    yield made
    signal.signal(signal.SIGTERM, before)


def change(line: CommandLine, *edits: tuple[str, str]) -> None:
    path = line.folder / "matrix.yaml"
    path.write_text(edited(path.read_text("utf-8"), *edits), "utf-8")


def test_a_plan_prints_a_line_for_each_cell_and_stage(line: CommandLine) -> None:
    code, output, error = line.run("plan", "loom", "--until", "build")
    assert (code, error) == (0, "")
    assert output == (
        "cell       stage        why\n"
        "loom/poet  render  run  never run\n"
        "loom/poet  build   run  never run\n"
        "\nexcluded: 1\n"
        "cell         why\n"
        "loom/critic  no loom is that large\n"
    )


def test_a_plan_as_json_is_read_by_programs(line: CommandLine) -> None:
    code, output, error = line.run("plan", "loom", "--until", "weights", "--json")
    assert (code, error) == (0, "")
    actions = json.loads(output)
    assert [(action["stage"], action["kind"], action["reasons"]) for action in actions] == [
        (stage, "run", ["never run"]) for stage in ("render", "build", "weights")
    ]
    assert "parts" not in actions[1]
    code, output, _ = line.run("plan", "loom", "--until", "weights", "--json", "--explain")
    assert "images/loom/Dockerfile" in json.loads(output)[1]["parts"]


def test_an_unknown_chip_ends_with_2_and_the_nearest_name(line: CommandLine) -> None:
    assert line.run("plan", "abacas") == (
        2,
        "",
        "error: no chip is called abacas\nhint: did you mean abacus?\n",
    )


def test_an_empty_selection_ends_with_3_and_says_what_is_excluded(line: CommandLine) -> None:
    assert line.run("release", "loom", "critic") == (
        3,
        "",
        "error: no cell matches loom critic\n"
        "loom/critic: excluded, no loom is that large\n"
        "hint: `nox -s plan` lists the cells of the matrix\n",
    )


def test_a_broken_matrix_ends_with_2_and_all_its_faults(line: CommandLine) -> None:
    change(line, ("margin: 0.08", "margin: 3"), ("modality: text\n    weights: {pypi", "x: {pypi"))
    code, output, error = line.run("release")
    assert (code, output) == (2, "")
    assert error == (
        "error: matrix.yaml has 4 faults\n"
        "matrix.yaml:6:29: gate.margin: expected a number from 0 to 1, got 3\n"
        "matrix.yaml:51:5: models.poet.modality: this key is required\n"
        "matrix.yaml:51:5: models.poet.weights: this key is required\n"
        "matrix.yaml:52:8: models.poet.x: unknown key (known: architecture, base_model, benchmarks, chat,"
        " gate, hub_name, known_problems, languages, license, load, modality, port, published, serve, size, smoke,"
        " title, weights)\n"
        "hint: docs/matrix.schema.json describes every key\n"
    )


def test_text_that_is_not_yaml_ends_with_2(line: CommandLine) -> None:
    (line.folder / "matrix.yaml").write_text("chips: [\n")
    code, _, error = line.run("plan")
    assert code == 2
    assert error.startswith("error: matrix.yaml:2:1: is not YAML: ")


def test_no_matrix_ends_with_2_and_says_where_to_run(line: CommandLine) -> None:
    assert line.run("plan", "--matrix", "other.yaml") == (
        2,
        "",
        "error: other.yaml: cannot be read: No such file or directory\n"
        "hint: run the command from the project folder or name the file with --matrix\n",
    )


def test_an_unknown_target_ends_with_2_and_the_nearest_name(line: CommandLine) -> None:
    assert line.run("plan", "--target", "locl") == (
        2,
        "",
        "error: no target is called locl\nhint: did you mean local?\n",
    )


@pytest.mark.parametrize("words", [("release",), ("promote",), ("publish", "loom")])
def test_a_public_target_without_consent_ends_with_2_before_anything_runs(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))  # no terminal: nobody was asked
    assert line.run(*words, "--target", "world", "--release", RELEASE) == (
        2,
        "",
        "error: the target world is public and needs consent\n"
        f"hint: add --yes{'; or stop earlier with --until card' if words[0] == 'release' else ''}\n",
    )
    assert not (line.folder / "out").exists()


def test_a_public_target_without_a_key_ends_with_2_before_anything_runs(line: CommandLine) -> None:
    words = ("release", "--target", "nobody", "--release", RELEASE, "--yes")
    assert line.run(*words) == (
        2,
        "",
        "error: targets.nobody.public_key: the target nobody is public, so its releases are signed,"
        " and it names no public key\n"
        "hint: docs/attestations.md says how to make one; or stop earlier with --until card\n",
    )
    assert not (line.folder / "out").exists()


def test_a_signed_release_without_the_private_key_ends_with_2_before_anything_runs(
    line: CommandLine,
) -> None:
    code, output, error = line.run("release", "--target", "world", "--release", RELEASE, "--yes")
    assert (code, output) == (2, "")
    assert "the target's releases are signed, and FLAGRELEASE_SIGNING_KEY is not set" in error
    assert not (line.folder / "out").exists()


def test_what_stays_inside_needs_no_consent(line: CommandLine) -> None:
    words = ("release", "loom", "--target", "world", "--until", "render", "--release", RELEASE)
    assert line.run(*words)[0] == 0


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_name_that_is_no_release_ends_with_2(line: CommandLine, more: tuple[str, ...]) -> None:
    assert line.run("release", "loom", "--release", "latest", *more) == (
        2,
        "",
        "error: latest is no release name\nhint: names are dates with a number: 2026.11.24.1\n",
    )


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_no_engine_ends_with_4_for_every_cell_after_what_needs_none(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = line.folder / "missing.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    monkeypatch.setattr(Engine, "connect", CONNECT)
    code, output, error = line.run("build", "*", "poet", "--release", RELEASE)
    assert code == 4
    engine = f"unix://{socket}: the container engine does not answer"
    assert [text for text in error.splitlines() if engine in text] == [f"error: {engine}"] * 2
    assert "hint: start it with ./bootstrap, or see that your user may use it" in error
    rows = [row.split()[:4] for row in output.splitlines() if row.startswith(("abacus/", "loom/"))]
    assert [row for row in rows if "wrote" not in row] == [
        ["abacus/poet", "render", "passed", rows[-4][3]],
        ["abacus/poet", "build", "not", "done"],
        ["loom/poet", "render", "passed", rows[-2][3]],
        ["loom/poet", "build", "not", "done"],
    ]
    gc.collect()  # docker-py leaves sockets open when nothing answers


def test_a_dry_run_needs_no_engine_and_writes_nothing(line: CommandLine) -> None:
    before = sorted(line.folder.rglob("*"))
    code, output, _ = line.run("release", "loom", "--dry-run")
    assert (code, output.count("never run")) == (0, len(STAGES))
    assert sorted(line.folder.rglob("*")) == before


def test_render_writes_and_its_check_finds_a_hand_edit(line: CommandLine) -> None:
    code, output, _ = line.run("render")
    assert code == 0
    assert "images/loom/poet/Dockerfile\n" in output
    number = len(output.splitlines())
    assert line.run("render")[:2] == (0, f"{number} rendered files, none changed\n")
    agreed = f"{number} rendered files agree with what is committed\n"
    assert line.run("render", "--check")[:2] == (0, agreed)
    path = line.folder / "images/loom/poet/Dockerfile"
    path.write_text(path.read_text().replace("EXPOSE 9010", "EXPOSE 80"))
    code, output, error = line.run("render", "--check")
    assert (code, output) == (1, "")
    assert error.startswith(
        "error: committed files differ from a fresh render\n"
        "--- committed/images/loom/poet/Dockerfile\n"
        "+++ rendered/images/loom/poet/Dockerfile\n"
    )
    assert error.endswith(
        "\n-EXPOSE 80\n+EXPOSE 9010\nhint: change what they are rendered from, then run nox -s render\n"
    )


@pytest.mark.parametrize("words", [["nonsense"], [], ["plan", "--until", "nonsense"]])
def test_words_that_are_no_command_end_with_2(line: CommandLine, words: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        line.run(*words)
    assert caught.value.code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_its_help(line: CommandLine, command: str) -> None:
    with pytest.raises(SystemExit) as caught:
        line.run(command, "--help")
    assert caught.value.code == 0


def test_what_is_not_said_is_as_options_have_it() -> None:
    assert options_of(["plan"]) == Options(command="plan")
    assert options_of(["bisect", "loom", "--gpus", "2"]) == Options(
        command="bisect", cells=["loom"], gpus=2
    )


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "plan", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert line.run("plan") == (130, "", "\ninterrupted; run the same command again to go on\n")


def test_a_bug_keeps_its_traceback(line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, "plan", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        line.run("plan")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StageRefusedError("garbage text", where="smoke of abacus/poet"), 1),
        (WorldError("no answer", where="registry.test"), 4),
        (InconclusiveError("too few items", where="accuracy of abacus/poet"), 5),
    ],
)
def test_one_cell_that_fails_keeps_no_other_from_going_on(
    line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    error: StageRefusedError | WorldError | InconclusiveError,
    code: int,
) -> None:
    flow = Flow(toy_project(line.folder))
    monkeypatch.setattr(Engine, "connect", lambda: flow.engine)
    stages = flow.table()

    def fails_for_abacus(run, log):  # type: ignore[no-untyped-def]
        flow.ends = {"smoke": error} if run.cell.chip_id == "abacus" else {}
        return stages["smoke"](run, log)

    monkeypatch.setattr(flow_module, "FLOW", {**stages, "smoke": fails_for_abacus})
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    words = ("smoke", "*", "poet", "--release", RELEASE)
    ended, output, shown = line.run(*words)
    assert ended == code
    assert shown == f"error: {error}\n"
    last: dict[str, StageName] = {}
    for row in output.splitlines():
        if row.startswith(("abacus/", "loom/")) and ":" not in row:
            last[row.split()[0]] = row.split()[1]  # type: ignore[assignment]
    assert last == {"abacus/poet": "smoke", "loom/poet": "smoke"}
    loom = flow.record("loom", "poet").stages.smoke
    assert loom is not None
    assert loom.status == "passed"


def test_plan_answers_from_the_records_that_are_there(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow(toy_project(line.folder))
    monkeypatch.setattr(Engine, "connect", lambda: flow.engine)
    monkeypatch.setattr(flow_module, "FLOW", flow.table())
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    flow.ends["smoke"] = StageRefusedError("no")
    assert line.run("smoke", "loom", "--release", RELEASE)[0] == 1
    code, output, _ = line.run("plan", "loom", "--until", "smoke")
    assert code == 0
    assert output.splitlines()[1:5] == [
        f"loom/poet  render   reuse  since {RELEASE}",
        f"loom/poet  build    reuse  since {RELEASE}",
        f"loom/poet  weights  reuse  since {RELEASE}",
        f"loom/poet  smoke    run    failed in {RELEASE}",
    ]


def test_a_record_that_cannot_be_read_ends_with_2(line: CommandLine) -> None:
    path = line.folder / f"out/{RELEASE}/loom/poet/record.json"
    path.parent.mkdir(parents=True)
    path.write_text(sha256("no record"))
    code, _, error = line.run("plan", "loom")
    assert code == 2
    assert error.startswith(f"error: {path}: this record cannot be read\n")
    assert error.splitlines()[-1].startswith("hint: it was changed, or written by another version")


def withdrawn_from(line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Flow:
    """Both cells promoted under one name, into a registry that commands reach too."""
    flow = Flow(toy_project(line.folder))
    monkeypatch.setattr(Engine, "connect", lambda: flow.engine)
    monkeypatch.setattr(flow_module, "FLOW", flow.table())
    monkeypatch.setattr(stage_run, "is_whole", lambda *_: True)
    monkeypatch.setattr(harbor, "Registry", lambda _, **__: flow.registry)
    code, _, error = line.run("release", "*", "poet", "--release", RELEASE)
    assert (code, error) == (0, "")
    return flow


def test_a_release_is_yanked_rolled_back_and_looked_through_from_the_command_line(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = withdrawn_from(line, monkeypatch)
    public = "toys/flagrelease_abacus_poet"
    why = ("--release", RELEASE, "--reason", "wrong answers", "--by", "Ada")
    record = line.folder / f"out/{RELEASE}/abacus/poet/record.json"
    before = record.read_bytes()
    code, output, _ = line.run("yank", "abacus", "poet", *why)
    assert code == 0
    assert f"abacus/poet: release {RELEASE} was yanked on" in output
    assert f"wrote out/{RELEASE}/abacus/poet/tombstone.json" in output
    assert record.read_bytes() == before
    # The record of this test is too poor for a card, which keeps nobody from withdrawing the image.
    assert f"the card of abacus/poet {RELEASE} does not say so yet" in output
    assert output.splitlines()[-1] == (
        "the hubs show abacus/poet as before. So that they show that it was withdrawn:"
        " nox -s cards -- abacus/poet --publish"
    )
    assert tombstone_beside(line.folder / f"out/{RELEASE}/loom/poet") is None
    assert RELEASE in flow.registry.tags(public)
    assert "latest" not in flow.registry.tags(public)
    assert line.run("rollback", *why)[0] == 0
    assert RELEASE not in flow.registry.tags(public)
    stone = tombstone_beside(line.folder / f"out/{RELEASE}/abacus/poet")
    assert stone is not None
    assert (stone.event, stone.cell, stone.by) == ("rolled_back", "abacus/poet", "Ada")
    unnamed = push_image(flow.registry, "toys/staging/abacus/poet", b"x" * 10**6, tag="b-1")
    code, output, _ = line.run("gc", "--dry-run")
    assert code == 0
    assert output == (
        "repository                tag  digest\n"
        f"toys/staging/abacus/poet  b-1  {unnamed}\n"
        "1 of 1 tags in staging are named by no record, card, index or public tag;"
        " 1.0 MB are theirs alone\n"
    )


def test_a_cell_without_a_record_stops_a_promotion_unless_parts_are_allowed(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    withdrawn_from(line, monkeypatch)
    (line.folder / f"out/{RELEASE}/loom/poet/record.json").unlink()
    words = ("promote", "*", "poet", "--release", RELEASE)
    code, _, error = line.run(*words)
    assert code == 3
    assert "no record of loom/poet is in release" in error
    monkeypatch.setenv("FLAGRELEASE_ALLOW_PARTIAL", "false")
    assert line.run(*words)[0] == 3
    monkeypatch.setenv("FLAGRELEASE_ALLOW_PARTIAL", "true")
    assert line.run(*words)[0] == 0


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("rollback",), "what is withdrawn needs --release and --reason"),
        (("yank", "abacus", "--release", RELEASE), "what is withdrawn needs --reason"),
        (("yank", "--release", RELEASE, "--reason", "r"), "name the cells to yank"),
        (("gc",), "gc deletes nothing yet"),
        (
            ("rollback", "--release", RELEASE, "--reason", "r", "--target", "world"),
            "the target world is public and needs consent",
        ),
    ],
)
def test_what_withdraws_says_what_is_missing(
    line: CommandLine, words: tuple[str, ...], error: str
) -> None:
    code, _, shown = line.run(*words)
    assert code == 2
    assert shown.startswith(f"error: {error}\n")
    assert "--until" not in shown  # they have no such option


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("-----BEGIN PRIVATE KEY-----\n", "it is no P-256 public key in PEM"),
    ],
)
def test_verify_says_of_a_key_that_cannot_be_read_where_the_right_one_is(
    line: CommandLine, content: str | None, why: str
) -> None:
    if content:
        (line.folder / "my.pub").write_text(content)
    code, _, error = line.run("verify", "registry.test/toys/poet:1", "--key", "my.pub")
    assert code == 2
    assert error.startswith(
        f"error: my.pub: the public key cannot be read: {why}\nhint: who releases"
    )


def test_bisect_wants_exactly_one_cell(line: CommandLine) -> None:
    code, _, err = line.run("bisect", "abacus")
    assert code == 2
    assert err == (
        "error: name exactly one cell to search in, this names abacus/poet, abacus/critic\n"
        "hint: for example: bisect nvidia smollm2\n"
    )


def test_bisect_of_a_cell_that_was_never_built_says_what_to_run(line: CommandLine) -> None:
    code, _, err = line.run("bisect", "abacus", "poet")
    assert code == 1
    assert err == (
        "error: bisect of abacus/poet: no image of this cell was built, or its weights are not there\n"
        "hint: run nox -s weights -- abacus poet\n"
    )


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("found", 0),
        ("no_operator", 1),
        ("nothing_fails", 5),
        ("not_confirmed", 5),
        ("budget_ended", 5),
    ],
)
def test_only_a_confirmed_answer_of_bisect_is_a_success(
    line: CommandLine, monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    result = SimpleNamespace(status=status, sentence="silu fails alone")
    evidence = line.folder / "out/bisect/abacus/poet/bisect-01.json"
    cell = one_cell(project_in(line.folder), "abacus", "poet")
    built = SimpleNamespace(cell=cell)
    monkeypatch.setattr("pipeline.bisecting.newest_image", lambda *_, **__: built)
    monkeypatch.setattr("pipeline.bisecting.search_cell", lambda *_: (result, (evidence,)))
    came, printed, err = line.run("bisect", "abacus", "poet", "--minutes", "5")
    assert came == code
    assert printed.splitlines()[-2:] == ["silu fails alone", str(evidence)]
    assert (err == "") == (code == 0)


def test_explain_names_every_part_of_a_key_and_what_it_was_before(line: CommandLine) -> None:
    code, out, _ = line.run("plan", "--explain", "abacus/poet", "--until", "build")
    assert code == 0
    assert "abacus/poet render: run, never run" in out
    parts = [words.split()[0] for words in out.splitlines() if words.startswith("images/")]
    assert "images/abacus/Dockerfile" in parts
    assert "abacus/poet build: run, never run" in out
