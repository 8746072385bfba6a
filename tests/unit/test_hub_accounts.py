"""Hubs as the matrix names them, and the tokens they need."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.hub_accounts import Hub, HubAccount
from pipeline.matrix_file import read_matrix
from pipeline.world.hub_folder import FolderHub
from pipeline.world.hubs import hubs_of
from tests.projects import ROOT

BOTH = [
    Hub(modelscope=HubAccount(organisation="FlagRelease", endpoint="https://modelscope.cn")),
    Hub(
        huggingface=HubAccount(
            organisation="FlagRelease",
            endpoint="https://huggingface.co",
            visibility="private",
            weights=True,
        )
    ),
]


def test_the_text_of_a_hub_names_all_that_is_asked_of_it() -> None:
    assert [hub.text for hub in (Hub(folder="out/hub"), *BOTH)] == [
        "folder:out/hub",
        "modelscope:FlagRelease at https://modelscope.cn, public",
        "huggingface:FlagRelease at https://huggingface.co, private, with weights",
    ]


def test_every_missing_token_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN", "  ")
    with pytest.raises(UsageError) as caught:
        hubs_of(BOTH, Path())
    assert str(caught.value) == (
        "tokens of hubs are missing\n"
        "environment variable MODELSCOPE_API_TOKEN: ModelScope needs a token to publish for FlagRelease\n"
        "environment variable HF_TOKEN: Hugging Face needs a token to publish for FlagRelease\n"
        "hint: make a token that may write for FlagRelease, and set MODELSCOPE_API_TOKEN\n"
        "make a token that may write for FlagRelease, and set HF_TOKEN"
    )


def test_a_folder_needs_no_token(tmp_path: Path) -> None:
    (hub,) = hubs_of([Hub(folder="out/hub")], tmp_path)
    assert isinstance(hub, FolderHub)
    assert hub.name == "folder:out/hub"
    assert hub.location("step3-FlagOS") == str(tmp_path / "out/hub/step3-FlagOS")


@pytest.mark.parametrize(
    "endpoint",
    ["http://huggingface.co", "https://user:token@huggingface.co", "https://huggingface.co/api"],
)
def test_a_token_is_sent_to_no_place_that_could_leak_it(endpoint: str) -> None:
    with pytest.raises(ValidationError):
        HubAccount(organisation="FlagRelease", endpoint=endpoint)


def test_a_hub_is_of_exactly_one_kind(tmp_path: Path) -> None:
    text = (ROOT / "matrix.yaml").read_text("utf-8")
    old = "hubs: [{folder: out/hub}]"
    assert old in text
    both = "{modelscope: {organisation: A, endpoint: 'https://a.test'}, folder: b}"
    (tmp_path / "matrix.yaml").write_text(text.replace(old, f"hubs: [{{}}, {both}]"), "utf-8")
    with pytest.raises(UsageError) as caught:
        read_matrix(tmp_path / "matrix.yaml")
    assert caught.value.details.splitlines() == [
        "matrix.yaml:12:12: targets.local.hubs.0: expected exactly one of folder, modelscope, huggingface",
        "matrix.yaml:12:16: targets.local.hubs.1: expected exactly one of folder, modelscope, huggingface",
    ]
