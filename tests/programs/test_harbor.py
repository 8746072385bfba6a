"""Harbor's own calls, and releases into a Harbor, against a stand-in that is held to Harbor's API description."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from pipeline.admission import Candidate, Release
from pipeline.errors import NotAllowedError, StageRefusedError, WorldError
from pipeline.matrix import Target
from pipeline.release_index import TagMove
from pipeline.results import Publication
from pipeline.stages.promote import promote
from pipeline.stages.publish import describe
from pipeline.stages.withdraw import Withdrawal, rollback
from pipeline.world.harbor import VERSIONS_STAY, Harbor, ImmutableRule, Selector, registry_of
from pipeline.world.indexes import tombstones
from pipeline.world.journal import open_journals
from pipeline.world.oci import OCI_MANIFEST
from pipeline.world.registry import Registry
from pipeline.world.shelf import Shelf
from tests.fakes_harbor import PASSWORD, FakeHarbor, Kept, fake_harbor, faults_of
from tests.fakes_registry import gated_record, push_image
from tests.projects import ROOT
from tests.real_registry import real_registry

PROJECT = "toys"
IMAGE = f"{PROJECT}/flagrelease_cpu_toy"
FIRST, SECOND = "2026.11.1", "2026.11.2"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHarbor]:
    with (
        real_registry(tmp_path / "registry") as host,
        fake_harbor(host, tmp_path / "registry/storage") as server,
    ):
        server.projects[PROJECT] = Kept()
        auth = base64.b64encode(f"robot$release:{PASSWORD}".encode()).decode()
        config = tmp_path / "docker/config.json"
        config.parent.mkdir()
        config.write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(config.parent))
        yield server


@pytest.fixture
def harbor(server: FakeHarbor) -> Iterator[Harbor]:
    client = Harbor(server.host, sleep=lambda _: None)
    yield client
    client.close()


def test_a_target_says_whether_its_registry_is_a_harbor() -> None:
    plain = Target(registry="127.0.0.1:5000/toys")
    target = Target(registry="127.0.0.1:5001/toys", staging="127.0.0.1:5000/toys", kind="harbor")

    assert type(registry_of(plain, "127.0.0.1:5000")) is Registry
    assert type(registry_of(target, "127.0.0.1:5001")) is Harbor
    assert type(registry_of(target, "127.0.0.1:5000")) is Registry


def test_a_project_is_public_private_or_absent(server: FakeHarbor, harbor: Harbor) -> None:
    server.projects["secret"] = Kept(is_public=False)
    found, hidden = harbor.project(PROJECT), harbor.project("secret")

    assert found is not None
    assert hidden is not None
    assert (found.name, found.is_public, hidden.is_public) == (PROJECT, True, False)
    assert harbor.project("nowhere") is None


def test_an_added_rule_is_read_back_and_guards_versions_alone(harbor: Harbor) -> None:
    assert harbor.immutable_rules(PROJECT) == ()
    harbor.add_immutable_rule(PROJECT, VERSIONS_STAY)
    assert harbor.immutable_rules(PROJECT) == (VERSIONS_STAY,)

    old = harbor.manifest(IMAGE, push_image(harbor, IMAGE, b"old"))
    new = harbor.manifest(IMAGE, push_image(harbor, IMAGE, b"new"))
    assert old is not None
    assert new is not None
    movable = ("latest", "rel-2026.11.1", f"sha256-{'0' * 64}")
    for tag in (FIRST, "v2026.11.01", *movable):
        harbor.put_manifest(IMAGE, tag, old.body, OCI_MANIFEST)
    moved = [tag for tag in harbor.tags(IMAGE) if harbor.can_overwrite(IMAGE, tag, new)]
    assert sorted(moved) == sorted(movable)
    with pytest.raises(WorldError, match="412") as caught:
        harbor.put_manifest(IMAGE, FIRST, new.body, OCI_MANIFEST)
    assert "immutable tag" in caught.value.hint


def test_rules_are_read_over_all_pages(server: FakeHarbor, harbor: Harbor) -> None:
    other = VERSIONS_STAY.model_copy(
        update={"tag_selectors": (Selector(decoration="matches", pattern="stable"),)}
    )
    server.projects[PROJECT].rules = [
        {"id": n, "priority": 0, **json.loads(other.model_dump_json())} for n in range(200)
    ]
    assert harbor.immutable_rules(PROJECT) == (other,) * 200
    assert server.asked == ["ListImmuRules"] * 3


def test_a_description_is_written_once_and_reads_as_written(
    server: FakeHarbor, harbor: Harbor
) -> None:
    push_image(harbor, f"{PROJECT}/deep/toy", b"layer")
    text = '# Toy <1B> & "more"\n\nIt\'s 玩具.'

    assert harbor.describe(f"{PROJECT}/deep/toy", text)
    assert not harbor.describe(f"{PROJECT}/deep/toy", text)
    assert server.projects[PROJECT].descriptions["deep/toy"].startswith("# Toy &lt;1B&gt; &amp;")
    assert server.asked == ["getRepository", "updateRepository", "getRepository", "getRepository"]


def test_an_image_is_described_by_the_beginning_of_its_card(harbor: Harbor) -> None:
    push_image(harbor, IMAGE, b"layer")
    card = (ROOT / "tests/golden/card.en.md").read_bytes()
    publications = [
        Publication(hub="h", location=place, changed=True, files=())
        for place in ("https://hub.test/Toy-FlagOS", "/srv/out/hub/Toy-FlagOS")
    ]
    said: list[str] = []
    for _ in range(2):
        describe(harbor, [IMAGE], {"card.en.md": card}, publications, said.append)

    lines = harbor._description(IMAGE).splitlines()
    assert lines[0] == "# SmolLM2-135M-Instruct-cpu-FlagOS"
    assert (
        "| Speed against x86-64 float32 | between 1.152 and 1.418 times its output tokens per second,"
        " depending on the load; label: *on par* |" in lines
    )
    assert lines[-1] == (
        "The whole card, with every command and result: <https://hub.test/Toy-FlagOS>"
    )
    assert not [line for line in lines if line.startswith(("---", "## ", "license:"))]
    assert said == [f"description of {IMAGE} {how}" for how in ("written", "is the same already")]


def test_other_registries_are_not_described() -> None:
    describe(Registry("127.0.0.1:1"), [IMAGE], {}, (), pytest.fail)


def test_what_an_account_may_not_is_said_without_its_password(
    server: FakeHarbor, harbor: Harbor
) -> None:
    server.may_not.add("CreateImmuRule")
    with pytest.raises(NotAllowedError) as caught:
        harbor.add_immutable_rule(PROJECT, VERSIONS_STAY)

    assert str(caught.value).startswith(
        f"{server.host}: this account may not add an immutable tag rule to project {PROJECT}:"
        " the registry answered 403"
    )
    assert PASSWORD not in str(caught.value)
    assert server.projects[PROJECT].rules == []


def test_who_has_no_password_is_refused_without_a_second_question(server: FakeHarbor) -> None:
    rule = ImmutableRule.model_validate(VERSIONS_STAY.model_dump())
    anonymous = Harbor(server.host, docker_config=Path("/nowhere"), sleep=lambda _: None)
    with pytest.raises(NotAllowedError, match="an anonymous client may not"):
        anonymous.add_immutable_rule(PROJECT, rule)
    assert server.asked == ["CreateImmuRule"]


def test_a_registry_that_is_no_harbor_is_told_so(tmp_path: Path) -> None:
    with (
        real_registry(tmp_path / "registry") as host,
        pytest.raises(WorldError, match="it answered 404"),
    ):
        Harbor(host).immutable_rules(PROJECT)


@dataclass
class Toys:
    """Releases of one toy image into the stand-in."""

    harbor: Harbor
    folder: Path
    said: list[str] = field(default_factory=list)

    @property
    def shelf(self) -> Shelf:
        index = f"{PROJECT}/releases"
        return Shelf(registry=self.harbor, index_repository=index, journals=self.folder)

    def promote(self, release: str, model: str = "toy") -> str:
        staging = f"{PROJECT}/staging/cpu/{model}"
        digest = push_image(self.harbor, staging, f"layer of {release}".encode())
        candidate = Candidate(
            record=gated_record(digest, f"cpu/{model}"),
            source=self.harbor,
            source_repository=staging,
            public=f"{PROJECT}/flagrelease_cpu_{model}",
        )
        all_or_none = Release(name=release, candidates=[candidate], left_out={})
        promote(all_or_none, self.shelf, today=date(2026, 11, 24), say=self.said.append)
        return digest

    def rollback(self, release: str) -> None:
        asked = Withdrawal(
            release=release, by="Ada", reason="wrong answers", time="2026-11-24T12:00:00+00:00"
        )
        rollback(asked, self.shelf, say=self.said.append)


def test_a_rollback_moves_the_alias_back_and_leaves_an_immutable_tag_with_its_tombstone(
    harbor: Harbor, tmp_path: Path
) -> None:
    harbor.add_immutable_rule(PROJECT, VERSIONS_STAY)
    toys = Toys(harbor, tmp_path / "journals")
    first, second = toys.promote(FIRST), toys.promote(SECOND)
    assert harbor.head(IMAGE, "latest") == second
    toys.rollback(SECOND)

    assert harbor.head(IMAGE, "latest") == first
    assert harbor.head(IMAGE, SECOND) == second
    assert f"{IMAGE}:{SECOND} stays: this registry does not delete it" in toys.said
    assert [stone.event for stone in tombstones(harbor, IMAGE, second)] == ["rolled_back"]
    assert not list(open_journals(tmp_path / "journals"))


def test_a_rollback_of_the_first_release_deletes_its_movable_tags_and_no_manifest(
    server: FakeHarbor, harbor: Harbor, tmp_path: Path
) -> None:
    toys = Toys(harbor, tmp_path / "journals")
    digest = toys.promote(FIRST)
    toys.rollback(FIRST)

    assert (harbor.head(IMAGE, "latest"), harbor.head(IMAGE, FIRST)) == (None, None)
    assert harbor.head(IMAGE, digest) == digest
    assert [one for one in server.asked if one != "ListImmuRules"] == ["deleteTag", "deleteTag"]


def rule(pattern: str, repositories: str = "**", **more: object) -> ImmutableRule:
    return ImmutableRule.model_validate(
        {
            "tag_selectors": [{"decoration": "matches", "pattern": pattern}],
            "scope_selectors": {
                "repository": [{"decoration": "repoMatches", "pattern": repositories}]
            },
            **more,
        }
    )


@pytest.mark.parametrize(
    ("asked", "repository", "tag", "is_held"),
    [
        (VERSIONS_STAY, "flagrelease_cpu_toy", FIRST, True),
        (VERSIONS_STAY, "deep/toy", "v2026.11.01.2-rc", True),
        (VERSIONS_STAY, "toy", "latest", False),
        (VERSIONS_STAY, "toy", f"sha256-{'0' * 64}.sig", False),
        (VERSIONS_STAY, "releases", "rel-2026.11.1", False),
        (rule("**"), "deep/toy", "latest", True),
        (rule("*", "toy"), "toy", "latest", True),
        (rule("*", "toy"), "deep/toy", "latest", False),
        (rule("*", "*"), "deep/toy", "latest", False),
        (rule("*", "deep/**"), "deep/toy", "latest", True),
        (rule("*", "**/toy"), "toy", "latest", True),
        (rule("la?est"), "toy", "latest", True),
        (rule("[!a-k]atest"), "toy", "latest", True),
        (rule("{latest,stable}"), "toy", "latest", True),
        (rule("latest", disabled=True), "toy", "latest", False),
        (rule("latest,stable"), "toy", "latest", False),
        (rule("2026.11.1"), "toy", "2026x11.1", False),
    ],
)
def test_a_rule_holds_what_harbors_matcher_gives_it(
    asked: ImmutableRule, repository: str, tag: str, is_held: bool
) -> None:
    assert asked.holds(repository, tag) is is_held


def test_a_rule_that_excludes_tags_holds_all_others() -> None:
    but_latest = rule("latest").model_copy(
        update={"tag_selectors": (Selector(decoration="excludes", pattern="latest"),)}
    )
    assert not but_latest.holds("toy", "latest")
    assert but_latest.holds("toy", "rel-1")


def test_a_rule_that_holds_the_alias_stops_a_promotion_before_anything_is_copied(
    harbor: Harbor, tmp_path: Path
) -> None:
    toys = Toys(harbor, tmp_path / "journals")
    first = toys.promote(FIRST)
    harbor.add_immutable_rule(PROJECT, rule("**", "flagrelease_*"))
    with pytest.raises(StageRefusedError, match="tags that releases have to move") as caught:
        toys.promote(SECOND)
    assert caught.value.details == f"{IMAGE}:latest: repoMatches flagrelease_*, matches **"
    assert "narrow the rule to {[0-9]*,v[0-9]*}" in caught.value.hint
    assert set(harbor.tags(IMAGE)) == {FIRST, "latest"}
    assert harbor.head(IMAGE, "latest") == first
    assert toys.shelf.index(SECOND) is None
    assert not list((tmp_path / "journals").glob(f"*{SECOND}*"))
    with pytest.raises(StageRefusedError, match="tags that releases have to move"):
        toys.rollback(FIRST)
    assert tombstones(harbor, IMAGE, first) == ()


def test_a_rule_that_is_added_while_layers_are_copied_stops_the_commit(
    server: FakeHarbor, harbor: Harbor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = Toys(harbor, tmp_path / "journals")
    toys.promote(FIRST)
    refuse_taken = Shelf.refuse_taken

    def and_meanwhile(shelf: Shelf, moves: tuple[TagMove, ...], *known: Any) -> None:
        refuse_taken(shelf, moves, *known)
        if list(open_journals(tmp_path / "journals")):
            server.projects[PROJECT].rules.append(
                {"id": 9, "priority": 0, **json.loads(rule("latest").model_dump_json())}
            )

    monkeypatch.setattr(Shelf, "refuse_taken", and_meanwhile)
    with pytest.raises(StageRefusedError, match="tags that releases have to move"):
        toys.promote(SECOND)
    assert toys.shelf.index(SECOND) is None
    assert open_journals(tmp_path / "journals") == ()


def test_an_index_that_cannot_get_further_cells_stops_a_promotion(
    harbor: Harbor, tmp_path: Path
) -> None:
    toys = Toys(harbor, tmp_path / "journals")
    toys.promote(FIRST)
    harbor.add_immutable_rule(PROJECT, rule("rel-*"))
    toys.promote(SECOND)  # its index is new
    with pytest.raises(StageRefusedError) as caught:
        toys.promote(SECOND, "other")
    assert caught.value.details == f"{PROJECT}/releases:rel-{SECOND}: repoMatches **, matches rel-*"


def test_version_tags_that_nothing_guards_are_told(harbor: Harbor, tmp_path: Path) -> None:
    toys = Toys(harbor, tmp_path / "journals")
    toys.promote(FIRST)
    told = (
        f"no immutable tag rule guards {IMAGE}:{FIRST}: doctor -- --fix adds one (docs/harbor.md)"
    )
    assert told in toys.said
    harbor.add_immutable_rule(PROJECT, VERSIONS_STAY)
    toys.promote(SECOND)
    assert not any(f"guards {IMAGE}:{SECOND}" in line for line in toys.said)


def test_an_account_that_may_not_list_rules_promotes_and_says_what_it_does_not_know(
    server: FakeHarbor, harbor: Harbor, tmp_path: Path
) -> None:
    toys = Toys(harbor, tmp_path / "journals")
    server.may_not.add("ListImmuRules")
    digest = toys.promote(FIRST)
    assert harbor.head(IMAGE, "latest") == digest
    (told,) = [line for line in toys.said if "not known before" in line]
    assert "may not list the immutable tag rules of project toys" in told


def test_the_robots_of_the_documentation_are_what_harbor_takes() -> None:
    text = (ROOT / "docs/harbor.md").read_text("utf-8")
    robots = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]

    assert [robot["name"] for robot in robots] == ["stage", "promote"]
    assert [faults_of(one, {"$ref": "#/definitions/RobotCreate"}) for one in robots] == [[], []]
    assert faults_of({"nmae": "x"}, {"$ref": "#/definitions/RobotCreate"})
