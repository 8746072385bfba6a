"""doctor on machines that lack this and that; its registries are real docker-registry processes."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.cell import Cell
from pipeline.checkup import Check, Finding, State, ok
from pipeline.chip import Smi
from pipeline.doctor import hub_checks, machine_checks, signs
from pipeline.errors import WorldError
from pipeline.hub_accounts import Hub
from pipeline.matrix import Target
from pipeline.record import ReleaseKey
from pipeline.registry_checkup import TRIAL_TAG, registry_checks
from pipeline.world.engine import Engine
from pipeline.world.harbor import VERSIONS_STAY, Harbor
from pipeline.world.registry import Registry
from pipeline.world.signing_key import KEY
from pipeline.world.signing_key import PASSWORD as PASSWORD_OF_KEY
from tests.attested import new_pair
from tests.fakes_harbor import PASSWORD, Kept, fake_harbor
from tests.projects import ROOT, one_cell, toy_project
from tests.real_registry import USER, free_host, real_registry, write_passwords
from tests.small_disk import fill, small_disk

RIGHT, OTHER = "U*U", "U*U*"
STAGING, PUBLIC = "toys/staging/doctor", "toys/doctor"
PUSH, VERSIONS = "push to staging", "version tags in public"


def quick(host: str) -> Registry:
    return Registry(host, sleep=lambda _: None)


def quick_harbor(host: str) -> Registry:
    return Harbor(host, sleep=lambda _: None)


def log_in(monkeypatch: pytest.MonkeyPatch, folder: Path, host: str, user: str, word: str) -> None:
    folder.mkdir(exist_ok=True)
    auth = base64.b64encode(f"{user}:{word}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither credentials nor an engine nor tokens of this machine."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "nobody"))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN", "FLAGRELEASE_REVISION"):
        monkeypatch.delenv(name, raising=False)


def looked(
    host: str,
    open_registry: Callable[[str], Registry] = quick,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    is_public: bool = False,
    mends: bool = False,
) -> dict[str, Finding]:
    """By the name of the check, without the host in it."""
    kind = "harbor" if open_registry is quick_harbor else "oci"
    target = Target.model_validate({"registry": f"{host}/toys", "kind": kind})
    found = registry_checks(target, open_registry, now, is_public=is_public, mends=mends)
    return {
        check.name.replace(f" of {host}", "").replace(f" {host}", ""): check.found()
        for check in found
    }


def states(found: dict[str, Finding]) -> dict[str, State]:
    return {name: one.state for name, one in found.items()}


def test_a_registry_with_the_right_password_is_well_and_nothing_is_left_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = write_passwords(tmp_path / "passwords", RIGHT)
    with real_registry(tmp_path / "registry", passwords=passwords) as host:
        log_in(monkeypatch, tmp_path / "docker", host, USER, RIGHT)
        found = looked(host)

        assert {name: one.seen for name, one in found.items()} == {
            "registry": "answers",
            "credentials": "present, and accepted",
            "clock": "within 60 s of this machine's",
            PUSH: f"tried in {STAGING}",
            VERSIONS: "only promote itself guards them, as is usual for a local registry",
        }
        assert set(states(found).values()) == {"ok"}
        for repository in (STAGING, PUBLIC):
            assert quick(host).tags(repository) == ()
            assert quick(host).head(repository, TRIAL_TAG) is None


def test_a_refused_password_is_wrong_and_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = write_passwords(tmp_path / "passwords", RIGHT)
    with real_registry(tmp_path / "registry", passwords=passwords) as host:
        log_in(monkeypatch, tmp_path / "docker", host, USER, OTHER)
        found = looked(host)

    assert states(found) == {
        "registry": "ok", "credentials": "wrong", "clock": "ok", PUSH: "wrong", VERSIONS: "wrong",
    }  # fmt: skip
    assert found["credentials"].seen == "present, and refused"
    assert found[PUSH].to_do.startswith(f"`docker login {host}` with an account that may")
    auth = base64.b64encode(f"{USER}:{OTHER}".encode()).decode()
    assert not [secret for secret in (f":{OTHER}", auth) if secret in str(found)]


def test_missing_credentials_are_wrong_where_the_registry_asks_for_some(tmp_path: Path) -> None:
    passwords = write_passwords(tmp_path / "passwords", RIGHT)
    with real_registry(tmp_path / "registry", passwords=passwords) as host:
        found = looked(host)["credentials"]

    assert (found.state, found.seen) == ("wrong", "none, and the registry asks for some")


def test_a_docker_configuration_that_cannot_be_read_is_wrong_and_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"auths": "hunter2"')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with real_registry(tmp_path / "registry") as host:
        found = looked(host)

    assert found["credentials"].state == "wrong"
    assert "is not a Docker client configuration" in found["credentials"].seen
    assert "hunter2" not in str(found)


def test_a_read_only_registry_takes_no_push(tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", is_read_only=True) as host:
        found = looked(host)

    assert (found["registry"].state, found[PUSH].state) == ("ok", "wrong")
    assert "405" in found[PUSH].seen


def test_a_registry_whose_disk_is_full_takes_no_push(tmp_path: Path) -> None:
    disk = tmp_path / "registry/storage"
    with small_disk(disk, 1 << 20):
        fill(disk)
        with real_registry(tmp_path / "registry") as host:
            found = looked(host)

    assert (found["registry"].state, found[PUSH].state) == ("ok", "wrong")
    assert "it answered 500" in found[PUSH].seen


def test_what_cannot_be_deleted_is_said_and_is_not_added_to(tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", deletes=False) as host:
        first, second = looked(host), looked(host)
        tags = quick(host).tags(STAGING)

    assert first[PUSH].seen == (
        f"tried in {STAGING}; {STAGING}:{TRIAL_TAG} stays, for it cannot be deleted"
    )
    assert (first, tags) == (second, (TRIAL_TAG,))
    assert "stays, for it cannot be deleted" in first[VERSIONS].seen


def test_a_registry_that_is_down_is_wrong_once_and_all_else_of_it_is_unknown() -> None:
    host, opened = free_host(), list[str]()

    def counted(host: str) -> Registry:
        opened.append(host)
        return quick(host)

    found = looked(host, counted)
    assert states(found) == {
        "registry": "wrong", "credentials": "unknown", "clock": "unknown",
        PUSH: "unknown", VERSIONS: "unknown",
    }  # fmt: skip
    assert found["registry"].to_do == "is it running? `./bootstrap` starts the local one"
    assert opened == [host]


def test_a_clock_that_is_an_hour_off_is_wrong(tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry") as host:
        found = looked(host, now=lambda: datetime.now(UTC) + timedelta(hours=1))["clock"]

    assert found.state == "wrong"
    assert found.seen.endswith(" s behind this machine's")
    assert abs(int(found.seen.split()[0]) - 3600) < 30


def test_a_public_registry_that_lets_version_tags_be_overwritten_is_wrong(tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry") as host:
        found = looked(host, is_public=True)[VERSIONS]
        assert quick(host).tags(PUBLIC) == ()

    assert found.state == "wrong"
    assert found.seen == f"this account can overwrite them, tried in {PUBLIC}"


def test_a_harbor_without_the_rule_is_wrong_and_is_mended_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        real_registry(tmp_path / "registry") as plain,
        fake_harbor(plain, tmp_path / "registry/storage") as server,
    ):
        server.projects["toys"] = kept = Kept()
        log_in(monkeypatch, tmp_path / "docker", server.host, "robot$release", PASSWORD)
        before = looked(server.host, quick_harbor, is_public=True)
        assert kept.rules == []
        mended = looked(server.host, quick_harbor, is_public=True, mends=True)
        after = looked(server.host, quick_harbor, is_public=True, mends=True)
        rules = len(kept.rules)
        server.projects.clear()
        nowhere = looked(server.host, quick_harbor, is_public=True)

    assert states(before) == {
        "registry": "ok", "credentials": "ok", "clock": "ok", PUSH: "ok",
        "project of public images": "ok", "immutable tag rule": "wrong", VERSIONS: "wrong",
    }  # fmt: skip
    assert before["immutable tag rule"].to_do.startswith("doctor -- --fix adds it")
    assert mended["immutable tag rule"].seen.startswith("added: tags ")
    assert mended[VERSIONS].seen.startswith(f"cannot be overwritten, tried in {PUBLIC}")
    assert set(states(after).values()) == {"ok"}
    assert rules == 1
    assert nowhere["project of public images"].state == "wrong"
    assert VERSIONS_STAY.disabled is False


def test_a_private_project_and_rules_of_others_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**VERSIONS_STAY.model_dump(mode="json"), "id": 1, "priority": 0}
    other["tag_selectors"][0]["pattern"] = "2*"
    with (
        real_registry(tmp_path / "registry") as plain,
        fake_harbor(plain, tmp_path / "registry/storage") as server,
    ):
        server.projects["toys"] = Kept(is_public=False, rules=[other])
        log_in(monkeypatch, tmp_path / "docker", server.host, "robot$release", PASSWORD)
        found = looked(server.host, quick_harbor, is_public=True)

    assert (
        found["project of public images"].seen == "toys is private: readers of a card cannot pull"
    )
    assert found["immutable tag rule"].state == "unknown"
    assert found[VERSIONS].state == "ok"


def test_a_rule_that_holds_the_alias_is_wrong_though_ours_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = {**VERSIONS_STAY.model_dump(mode="json"), "id": 1, "priority": 0}
    all_tags = {**ours, "id": 2, "tag_selectors": [{**ours["tag_selectors"][0], "pattern": "**"}]}
    with (
        real_registry(tmp_path / "registry") as plain,
        fake_harbor(plain, tmp_path / "registry/storage") as server,
    ):
        server.projects["toys"] = Kept(rules=[ours, all_tags])
        log_in(monkeypatch, tmp_path / "docker", server.host, "robot$release", PASSWORD)
        found = looked(server.host, quick_harbor, is_public=True)["immutable tag rule"]

    assert (found.state, found.seen) == (
        "wrong",
        "a rule of toys (repoMatches **, matches **) holds `latest`, which releases move",
    )


# -- the machine ------------------------------------------------------------------------------------------------------


def no_engine() -> Engine:
    raise WorldError("the container engine does not answer", where="sock", hint="start it")


def of_machine(*cells: Cell, are_named: bool = True) -> dict[str, Finding]:
    found = machine_checks(cells, no_engine, are_named=are_named)
    return {check.name: check.found() for check in found}


def test_without_an_engine_the_disk_is_unknown(tmp_path: Path) -> None:
    found = of_machine(one_cell(toy_project(tmp_path), "loom", "poet"))

    assert (found["engine"].state, found["disk of images"].state) == ("wrong", "unknown")
    assert found["engine"].seen == "sock: the container engine does not answer"
    assert found["engine"].to_do == "start it"
    assert found["devices of loom"].state == "ok"


@pytest.mark.parametrize(
    ("script", "named", "state", "seen"),
    [
        ("echo 'Bead 9000'; echo 'Bead 9000'", True, "ok", "Bead 9000, Bead 9000"),
        ("echo nothing", True, "wrong", "beads-smi runs and names no card"),
        (
            "echo broken; exit 3",
            True,
            "wrong",
            "listing the cards: a command ended with exit code 3",
        ),
        (None, True, "wrong", "listing the cards: beads-smi is not installed"),
        (None, False, "unknown", "no beads-smi here"),
    ],
)
def test_the_tool_of_a_chip_is_asked_for_its_cards(
    script: str | None,
    named: bool,
    state: State,
    seen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cell = one_cell(toy_project(tmp_path), "loom", "poet")
    smi = Smi(command="beads-smi", name="(Bead [0-9]+)")
    with_tool = Cell(**{**vars(cell), "chip": cell.chip.model_copy(update={"smi": smi})})
    if script:
        tool = tmp_path / "bin/beads-smi"
        tool.parent.mkdir()
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    found = of_machine(with_tool, are_named=named)["devices of loom"]

    assert (found.state, found.seen.splitlines()[0][: len(seen)]) == (state, seen)


def test_a_hub_needs_its_token_which_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = {"organisation": "FlagRelease", "endpoint": "https://hub.test"}
    hubs = [{"huggingface": account}, {"modelscope": account}, {"folder": "out/hub"}]
    monkeypatch.setenv("HF_TOKEN", "hf_nobody_may_see_this")
    asked = [Hub.model_validate(hub) for hub in hubs]
    found = {check.name: check.found() for check in hub_checks(asked, tmp_path)}

    assert found["hub huggingface:FlagRelease"].seen == "its token is set, not tried"
    assert found["hub modelscope:FlagRelease"].state == "wrong"
    assert "MODELSCOPE_API_TOKEN" in found["hub modelscope:FlagRelease"].to_do
    assert found["hub folder:out/hub"].state == "ok"
    assert "hf_nobody" not in str(found)


def test_the_key_that_signs_is_tried_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, other = new_pair("hunter2"), new_pair()
    public = ReleaseKey(path="toys.pub", pem=pair.public, fingerprint=pair.verifying.fingerprint)

    def signing(release_key: ReleaseKey | None = public) -> Finding:
        return Check("signing key", lambda: signs(lambda: release_key)).found()

    assert signing(None).state == "wrong"
    assert "docs/attestations.md" in signing(None).to_do
    monkeypatch.delenv(KEY, raising=False)
    assert signing().state == "unknown"
    monkeypatch.setenv(KEY, other.private.decode())
    assert (signing().state, "another key" in signing().seen) == ("wrong", True)
    monkeypatch.setenv(KEY, pair.private.decode())
    assert "the password does not open it" in signing().seen
    monkeypatch.setenv(PASSWORD_OF_KEY, "hunter2")
    assert signing() == ok("the private half of toys.pub")


def test_git_is_clean_changed_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git() -> Finding:
        return of_machine()["git"]

    assert git().state == "unknown"
    (tmp_path / "matrix.yaml").write_text("a: 1\n")
    words = ["-c", "user.name=Ada", "-c", "user.email=ada@example.test"]
    for command in (["init", "-q"], ["add", "."], [*words, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True, timeout=30)
    assert git().state == "ok"
    (tmp_path / "untracked").touch()
    assert git().state == "ok"
    (tmp_path / "matrix.yaml").write_text("a: 2\n")
    assert git().state == "wrong"
    assert git().seen.endswith(": matrix.yaml")


def test_every_check_runs_on_a_machine_that_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = free_host()
    toy_project(tmp_path, ("registry.test/toys", f"{host}/toys"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    words = [sys.executable, "-m", "pipeline", "doctor"]
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )

    lines, code = done.stdout.splitlines(), done.returncode
    told = [line for line in lines if not line.startswith("         ")]
    assert code == 1
    assert [line.split()[0] for line in told[:-1]] == [
        "unknown", "wrong", "unknown", "ok", "ok", "wrong", "unknown", "unknown", "unknown", "unknown", "ok",
    ]  # fmt: skip
    assert told[-1] == "11 checks: 3 ok, 2 wrong, 6 unknown"
    assert len(lines) == len(told) + 8


def test_a_check_that_fails_in_an_unexpected_way_ends_no_other() -> None:
    def broken() -> Finding:
        raise WorldError("it fell over", details="on the left\nside\nand more", hint="pick it up")

    found = Check("x", broken).found()
    assert found == Finding(
        state="wrong", seen="it fell over; on the left; side", to_do="pick it up"
    )
