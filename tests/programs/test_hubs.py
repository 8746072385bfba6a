"""Publishing with the real clients, against stand-ins of both hubs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.canonical import sha256_bytes
from pipeline.errors import StageRefusedError, WorldError
from pipeline.hub_accounts import Hub as Asked
from pipeline.hub_accounts import HubAccount
from pipeline.record import Record, Status
from pipeline.results import CardResult, FileHash, PromoteResult, Publication, WeightsResult
from pipeline.stages.publish import publish as publish_stage
from pipeline.stages.publish import weight_files
from pipeline.world import standing
from pipeline.world.hub import Hub, HubFile, Terms, held, publish
from pipeline.world.hub_account import AccountHub
from pipeline.world.hubs import hubs_of
from pipeline.world.standing import Beside, Standing
from tests.fakes_hubs import (
    TOKEN,
    Fault,
    HubHandler,
    HubServer,
    HuggingFaceHandler,
    Kept,
    ModelScopeHandler,
    Reply,
    serving,
)
from tests.fakes_registry import FakeRegistry
from tests.record_parts import passed
from tests.records import cpu_record

# huggingface_hub 2.4 gives httpx2 a file in a way that it is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

NAME = "step3-FlagOS"
REPOSITORY = f"FlagRelease/{NAME}"
CARDS = {
    "README.md": HubFile.of(b"---\nlicense: mit\n---\n# Step3\n"),
    "README_zh.md": HubFile.of("# 阶跃\n".encode()),
    "differences.svg": HubFile.of(b"<svg/>"),
}
TERMS = Terms(is_private=False, license="MIT")
KINDS: dict[str, type[HubHandler]] = {
    "huggingface": HuggingFaceHandler,
    "modelscope": ModelScopeHandler,
}


@dataclass
class Place:
    """A hub of one kind, served on loopback, and pauses that are noted instead of made."""

    kind: str
    server: HubServer
    pauses: list[float]

    def hub(self, **settings: object) -> Hub:
        account = HubAccount.model_validate(
            {"organisation": "FlagRelease", "endpoint": self.server.endpoint, **settings}
        )
        (hub,) = hubs_of([Asked.model_validate({self.kind: account})], Path())
        return hub

    def publish(self, files: dict[str, HubFile] = CARDS, terms: Terms = TERMS) -> Publication:
        return publish(
            self.hub(), NAME, files, terms, message="release 1", sleep=self.pauses.append
        )

    @property
    def kept(self) -> Kept:
        return self.server.repositories[REPOSITORY]

    def fault(self, method: str, path: str, reply: Reply | None, **how: object) -> None:
        self.server.faults.append(Fault(method, path, reply, **how))  # type: ignore[arg-type]


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # The stand-in has the hub's LFS door, not its Xet store, which is another service.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with serving(KINDS[request.param]) as server:
        yield Place(request.param, server, pauses)


def weights(folder: Path, *names: str) -> dict[str, HubFile]:
    found = {}
    for name in names:
        data = name.encode() * 20_000
        (folder / name).write_bytes(data)
        found[name] = HubFile(
            content=folder / name, sha256=sha256_bytes(data), size_bytes=len(data)
        )
    return found


def files_of(kept: Kept) -> dict[str, bytes]:
    return {path: data for path, data in kept.files.items() if path != ".gitattributes"}


def contents(files: dict[str, HubFile]) -> dict[str, bytes]:
    return {
        path: file.content if isinstance(file.content, bytes) else file.content.read_bytes()
        for path, file in files.items()
    }


def test_a_missing_repository_is_made_and_gets_all_files_in_one_commit(place: Place) -> None:
    done = place.publish()
    assert done.changed
    assert files_of(place.kept) == contents(CARDS)
    assert place.kept.commits == ["release 1"]
    assert not place.kept.is_private
    assert held(place.hub(), NAME, done)


def test_the_same_files_again_make_no_commit_and_upload_nothing(
    place: Place, tmp_path: Path
) -> None:
    files = CARDS | weights(tmp_path, "model.safetensors")
    first = place.publish(files)
    place.server.requests.clear()
    again = place.publish(files)
    assert (first.changed, again.changed) == (True, False)
    assert again.files == first.files
    assert place.kept.commits == ["release 1"]
    assert {request.split()[0] for request in place.server.requests} <= {"GET", "HEAD"}


def test_only_what_changed_is_in_the_second_commit(place: Place) -> None:
    place.publish()
    place.kept.files["config.json"] = b"{}"
    changed = CARDS | {"README_zh.md": HubFile.of("# 阶跃 3\n".encode())}
    assert place.publish(changed).changed
    assert files_of(place.kept) == contents(changed) | {"config.json": b"{}"}
    assert place.kept.commits == ["release 1", "release 1"]


def test_cards_that_are_no_longer_written_go_in_the_same_commit(place: Place) -> None:
    place.publish()
    place.kept.files |= {"README_fr.md": b"old", "config.json": b"{}"}
    assert place.publish().changed
    assert files_of(place.kept) == contents(CARDS) | {"config.json": b"{}"}
    assert len(place.kept.commits) == 2


def test_a_private_repository_is_made_private(place: Place) -> None:
    place.publish(terms=Terms(is_private=True, license="MIT"))
    assert place.kept.is_private
    assert not place.publish(terms=Terms(is_private=True, license="MIT")).changed


def test_a_repository_of_the_other_visibility_is_refused_untouched(place: Place) -> None:
    place.publish(terms=Terms(is_private=True, license="MIT"))
    place.kept.files["README.md"] = b"theirs"
    with pytest.raises(StageRefusedError, match="is private and must be public"):
        place.publish()
    assert place.kept.files["README.md"] == b"theirs"


def test_a_rate_limit_is_waited_for_as_long_as_the_hub_asks(place: Place) -> None:
    body = {"error": "Too many requests", "Message": "too many requests"}
    place.fault("POST", "/commit/", Reply(429, body, {"Retry-After": "7"}))
    assert place.publish().changed
    assert place.pauses == [7.0]
    assert place.kept.commits == ["release 1"]


def test_a_commit_whose_answer_is_lost_is_not_made_twice(place: Place) -> None:
    place.fault("POST", "/commit/", None, comes_after=True)
    assert place.publish().changed
    assert place.kept.commits == ["release 1"]


def test_a_conflict_with_another_commit_starts_from_what_is_there_now(place: Place) -> None:
    body = {"error": "conflict", "Code": 10030000001, "Message": "branch changed"}
    place.fault("POST", "/commit/", Reply(409, body))
    assert place.publish().changed
    assert len(place.server.asked("/commit/")) == 2
    assert place.kept.commits == ["release 1"]


def test_an_interrupted_upload_goes_on_where_it_stopped(place: Place, tmp_path: Path) -> None:
    files = CARDS | weights(tmp_path, "model-1.safetensors", "model-2.safetensors")
    broken = files["model-2.safetensors"].sha256
    place.fault("PUT", f"/blobs/{broken}", None, times=1000)
    with pytest.raises(WorldError, match=r"committing: .* gave no answer") as caught:
        place.publish(files)
    assert "is not sent again" in caught.value.hint
    assert place.kept.commits == []
    place.server.faults.clear()
    place.server.requests.clear()
    assert place.publish(files).changed
    assert place.server.asked("/blobs/") == [f"PUT /blobs/{broken}"]
    assert files_of(place.kept) == contents(files)
    assert place.kept.commits == ["release 1"]


def test_a_hub_that_stays_broken_is_reported_after_four_attempts(place: Place) -> None:
    place.fault("POST", "/commit/", Reply(500, {"error": "x", "Message": "x"}), times=1000)
    with pytest.raises(WorldError, match=r"committing: .* answered HTTP 500"):
        place.publish()
    assert len(place.server.asked("/commit/")) == 4
    assert place.kept.commits == []


def test_a_hub_that_does_not_answer_is_named(place: Place) -> None:
    place.fault("GET", "/", None, times=1000)
    with pytest.raises(WorldError) as caught:
        place.publish()
    assert caught.value.exit_code == 4
    assert caught.value.where == f"{place.server.endpoint}/{REPOSITORY}"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_told_at_once_and_not_shown(place: Place, status: int) -> None:
    echo = {"error": f"no right: {TOKEN}", "Message": f"no right: {TOKEN}"}
    place.fault("POST", "/commit/", Reply(status, echo), times=1000)
    with pytest.raises(WorldError, match=f"answered HTTP {status}") as caught:
        place.publish()
    assert len(place.server.asked("/commit/")) == 1
    assert "the token in " in caught.value.hint
    assert TOKEN not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_unknown_token_makes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "another")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "another")
    with pytest.raises(WorldError, match="answered HTTP 401") as caught:
        place.publish()
    assert "another" not in str(caught.value)
    assert place.server.repositories == {}


def test_a_signed_address_is_not_shown(place: Place, tmp_path: Path) -> None:
    files = weights(tmp_path, "model.safetensors")
    said = f"{place.server.endpoint}/blobs/1?Signature=abc is over"
    place.fault("PUT", "/blobs/", Reply(403, {"error": said, "Message": said}), times=1000)
    with pytest.raises(WorldError) as caught:
        place.publish(files)
    assert "/blobs/" in str(caught.value)
    assert "abc" not in str(caught.value)


def test_a_card_that_comes_back_otherwise_is_reported(place: Place) -> None:
    place.server.loses_the_end = True
    with pytest.raises(WorldError, match="reading a published card back") as caught:
        place.publish()
    assert caught.value.where.endswith(f"{REPOSITORY}/README.md")


def test_what_was_published_and_is_gone_is_noticed(place: Place) -> None:
    done = place.publish()
    place.kept.files["README_zh.md"] = b"theirs"
    assert not held(place.hub(), NAME, done)
    del place.server.repositories[REPOSITORY]
    assert not held(place.hub(), NAME, done)


def promoted_record(status: Status = "passed") -> Record:
    record = cpu_record()
    assert record.image is not None
    files = zip(("card.en.md", "card.zh.md", "differences.svg"), CARDS.values(), strict=True)
    card = CardResult(
        files=tuple(
            FileHash(path=path, sha256=file.sha256, size_bytes=file.size_bytes)
            for path, file in files
        )
    )
    promoted = PromoteResult(
        reference="r",
        tag=record.release,
        digest=str(record.image.manifest_digest),
        copied_bytes=0,
        mounted_blobs=1,
    )
    accuracy = record.stages.accuracy
    assert accuracy is not None
    record = record.with_stage("accuracy", accuracy.model_copy(update={"status": status}))
    return record.with_stage("card", passed(card)).with_stage("promote", passed(promoted))


def test_the_stage_publishes_cards_and_weights_of_a_promoted_record_once(
    place: Place, tmp_path: Path
) -> None:
    names = {"README.md": "card.en.md", "README_zh.md": "card.zh.md"}
    cards = {names.get(path, path): data for path, data in contents(CARDS).items()}
    record, hub = promoted_record(), place.hub(weights=True)
    weights(tmp_path, "model.safetensors", "README.md")
    found = WeightsResult(
        source="path:w",
        source_sha256=None,
        sha256="0" * 64,
        files=tuple(
            FileHash(path=path, sha256=file.sha256, size_bytes=file.size_bytes)
            for path, file in weights(tmp_path, "model.safetensors", "README.md").items()
        ),
    )
    files = weight_files(found, tmp_path)
    first = publish_stage(record, cards, [hub], NAME, files)
    again = publish_stage(record, cards, [hub], NAME, files)
    assert [done.changed for done in (*first.publications, *again.publications)] == [True, False]
    assert place.kept.commits == [f"cpu/smollm2, release {record.release}"]
    assert files_of(place.kept) == contents(
        CARDS | {"model.safetensors": files["model.safetensors"]}
    )
    assert not place.kept.is_private


def test_what_only_a_waiver_let_through_stays_private(place: Place) -> None:
    names = {"README.md": "card.en.md", "README_zh.md": "card.zh.md"}
    cards = {names.get(path, path): data for path, data in contents(CARDS).items()}
    publish_stage(promoted_record("inconclusive"), cards, [place.hub()], NAME)
    assert place.kept.is_private


@pytest.fixture
def compared(place: Place, monkeypatch: pytest.MonkeyPatch) -> Standing:
    """What a release with nothing to do remembers of a hub that it has just compared."""
    monkeypatch.setattr(standing, "Registry", lambda host, **_: FakeRegistry(host))
    done, hub = place.publish(), place.hub()
    found = held(hub, NAME, done)
    assert found is not None
    assert isinstance(hub, AccountHub)
    place.server.requests.clear()
    return Standing(
        host="registry.test",
        index_repository="toys/releases",
        beside=Beside(tags=(), withdrawn=None),
        tags=(),
        cards=(hub.card(NAME, done, found.head),),
    )


def test_one_question_tells_that_a_hub_still_holds_a_card(place: Place, compared: Standing) -> None:
    assert compared.is_still_so()
    (asked,) = place.server.requests
    assert asked.startswith("GET /api/")


@pytest.mark.parametrize("path", ["README.md", "README_zh.md"])
def test_a_card_that_somebody_changed_or_removed_is_not_held(
    place: Place, compared: Standing, path: str
) -> None:
    place.kept.files[path] += b"and more"
    assert not compared.is_still_so()
    del place.kept.files[path]
    assert not compared.is_still_so()
    del place.server.repositories[REPOSITORY]
    assert not compared.is_still_so()


def test_a_hub_that_gives_no_answer_or_no_token_is_not_taken_for_unchanged(
    place: Place, compared: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reply in (
        Reply(503),
        Reply(302, headers={"Location": "https://elsewhere.test"}),
        Reply(200, b"half"),
        Reply(200, {"Data": {"Files": [{"Path": path} for path in CARDS]}}),  # without hashes
        None,
    ):
        place.fault("GET", "/api/", reply)
        assert not compared.is_still_so()
    assert compared.is_still_so()
    place.server.requests.clear()
    for variable in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.setenv(variable, "")
    assert not compared.is_still_so()
    assert place.server.requests == []
