"""A package index with a password, as a build on this machine sees it: without."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests

from pipeline.world.index_relay import index_for_build
from tests.wheel_index import wheel_index

WHEEL = "toys-1.0-py3-none-any.whl"
CONTENT = b"a wheel" * 1000
SECRET = "p@ss/word"
QUOTED = "planted:p%40ss%2Fword"


@pytest.fixture
def given() -> set[str]:
    return set()


@pytest.fixture
def upstream(given: set[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with wheel_index({WHEEL: CONTENT}, f"planted:{SECRET}", given) as address:
        quoted = address.replace(f"planted:{SECRET}", QUOTED)
        monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
        monkeypatch.setenv("PIP_INDEX_URL", quoted)
        yield quoted


def at(address: str, path: str) -> str:
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def test_the_build_reads_pages_and_files_and_learns_no_password(
    upstream: str, given: set[str]
) -> None:
    with index_for_build() as address:
        assert address is not None
        assert urlsplit(address).path == urlsplit(upstream).path
        assert "p%40ss" not in address
        page = requests.get(f"{address}/toys/", timeout=5)
        assert WHEEL in page.text
        assert requests.get(at(address, f"/files/{WHEEL}"), timeout=5).content == CONTENT
        assert requests.get(f"{address}/nothing/", timeout=5).status_code == 404
    assert given == {WHEEL}


def test_a_link_with_the_whole_address_leads_through_the_relay(
    given: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    with wheel_index({WHEEL: CONTENT}, "planted:word", given, with_origin=True) as upstream:
        monkeypatch.setenv("PIP_INDEX_URL", upstream)
        with index_for_build() as address:
            assert address is not None
            page = requests.get(f"{address}/toys/", timeout=5).text
    assert f'href="http://127.0.0.1:{urlsplit(address).port}/files/{WHEEL}"' in page


def test_a_token_as_user_name_stays_outside_too(
    given: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with wheel_index({WHEEL: CONTENT}, "planted-token:", given) as upstream:
        token_alone = upstream.replace("planted-token:@", "planted-token@")
        monkeypatch.setenv("UV_DEFAULT_INDEX", token_alone)
        with index_for_build() as address:
            assert address is not None
            assert "planted-token" not in address
            assert WHEEL in requests.get(f"{address}/toys/", timeout=5).text


@pytest.mark.usefixtures("upstream")
def test_only_the_build_may_ask() -> None:
    with index_for_build() as address:
        assert address is not None
        bare = address.replace(address.partition("//")[2].partition("@")[0] + "@", "")
        assert requests.get(f"{bare}/toys/", timeout=5).status_code == 401
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/toys/", timeout=5)


def test_an_index_that_is_down_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{QUOTED}@127.0.0.1:9/simple")
    with index_for_build() as address:
        answer = requests.get(f"{address}/toys/", timeout=5)
    assert (answer.status_code, answer.text) == (
        502,
        "the package index did not answer: ConnectionError",
    )


@pytest.mark.parametrize("address", [None, "https://mirror.test/simple"])
def test_an_index_without_a_password_is_asked_directly(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_DEFAULT_INDEX", raising=False)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    if address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
    with index_for_build() as index:
        assert index == address
