"""A package index with a password, as a build on this machine sees it: without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests

from pipeline.world.index_relay import PackageIndexes, indexes_for_build
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
    with indexes_for_build(()) as indexes:
        address = str(indexes.main)
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
        with indexes_for_build(()) as indexes:
            address = str(indexes.main)
            page = requests.get(f"{address}/toys/", timeout=5).text
    assert f'href="http://127.0.0.1:{urlsplit(address).port}/files/{WHEEL}"' in page


def test_a_token_as_user_name_stays_outside_too(
    given: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with wheel_index({WHEEL: CONTENT}, "planted-token:", given) as upstream:
        token_alone = upstream.replace("planted-token:@", "planted-token@")
        monkeypatch.setenv("UV_DEFAULT_INDEX", token_alone)
        with indexes_for_build(()) as indexes:
            address = str(indexes.main)
            assert "planted-token" not in address
            assert WHEEL in requests.get(f"{address}/toys/", timeout=5).text


@pytest.mark.usefixtures("upstream")
def test_only_the_build_may_ask() -> None:
    with indexes_for_build(()) as indexes:
        address = str(indexes.main)
        bare = address.replace(address.partition("//")[2].partition("@")[0] + "@", "")
        assert requests.get(f"{bare}/toys/", timeout=5).status_code == 401
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/toys/", timeout=5)


def test_an_index_that_is_down_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://{QUOTED}@127.0.0.1:9/simple")
    with indexes_for_build(()) as indexes:
        answer = requests.get(f"{indexes.main}/toys/", timeout=5)
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
    with indexes_for_build(()) as indexes:
        assert indexes == PackageIndexes(main=address, extra=())


def test_indexes_beside_the_main_one_stay_outside_with_their_accounts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One of the machine, one of the chip with its account in the address, one with it in ~/.netrc, one without."""
    given = [set[str](), set[str](), set[str]()]
    with ExitStack() as open_:
        machine, chip, netrc = (
            open_.enter_context(wheel_index({WHEEL: CONTENT}, f"planted:secret-{n}", given[n]))
            for n in range(3)
        )
        bare = netrc.replace("planted:secret-2@", "")
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login planted password secret-2\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "UV_INDEX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{machine} file:///opt/pypi/simple")
        public = "https://wheels.test/cpu"
        with indexes_for_build([chip, bare, public]) as indexes:
            monkeypatch.delenv("NETRC")  # which requests would take instead of what an address says
            *relayed, last = indexes.extra
            assert (indexes.main, last, len(relayed)) == (None, public, 3)
            assert "secret" not in str(indexes)
            for address in relayed:
                page = requests.get(f"{address}/toys/", timeout=5)
                assert WHEEL in page.text
                file = requests.get(at(address, f"/files/{WHEEL}"), timeout=5)
                assert file.content == CONTENT
    assert given == [{WHEEL}] * 3
