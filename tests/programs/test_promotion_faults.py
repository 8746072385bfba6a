"""A promotion of six cells through the real registry, with one fault each; `nox -s trials` does all, and 20 kills."""

from __future__ import annotations

import json
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault_proxy import Asked
from tests.promoter import CELLS
from tests.promotion_faults import (
    burst,
    cut_inside_a_blob,
    down_for_good,
    expired_login,
    full_disk,
    killed,
    requests_of_a_promotion,
    two_promoters,
    wrong_blob,
    wrong_manifest,
)
from tests.promotion_site import Row, Site, log_in, site, small_disk
from tests.promotions import NEW
from tests.real_registry import USER, write_passwords


@pytest.fixture(scope="module")
def open_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as found:
        yield found


def told(row: Row) -> tuple[str, str, str, str]:
    return row.ended, row.after_fault, row.after_next_run, row.after_promotion


def is_commit(asked: Asked) -> bool:
    return asked.method == "PUT" and "/releases/manifests/rel-" in asked.path


def is_alias(asked: Asked) -> bool:
    return asked.method == "PUT" and asked.path.endswith("/latest")


def test_killed_before_the_commit_everything_is_old_and_after_it_new(open_site: Site) -> None:
    assert told(killed(open_site, is_commit, is_before=True)) == ("killed", "old", "old", "new")
    assert told(killed(open_site, is_commit, is_before=False)) == ("killed", "old", "new", "new")
    assert told(killed(open_site, is_alias, is_before=True)) == ("killed", "mixed", "new", "new")


def test_a_promotion_asks_for_nothing_that_it_knows_and_keeps_its_order(open_site: Site) -> None:
    requests_of_a_promotion(open_site)
    seen = [(asked.method, asked.path) for asked in open_site.to_target.seen]
    assert len(seen) < 27 * len(CELLS)
    images = [path for method, path in seen if method == "PUT" and "flagrelease_" in path]
    digests = [path for path in images if "/manifests/sha256:" in path]
    versions = [path for path in images if path.endswith(f"/{NEW}")]
    aliases = [path for path in images if path.endswith("/latest")]
    (commit,) = [path for method, path in seen if method == "PUT" and "/manifests/rel-" in path]
    assert len(digests) == len(versions) == len(aliases) == len(CELLS)
    order = [path for method, path in seen if method == "PUT" and path in {*images, commit}]
    first, last = order.index(commit), order.index(aliases[0])
    assert set(order[:first]) == set(digests)
    assert set(order[first + 1 : last]) == set(versions)
    for path in digests:  # absent, then read back
        assert [method for method, asked in seen if asked == path] == ["GET", "PUT", "GET"]
    for path in (
        *versions,
        *aliases,
    ):  # what it named, whether that is so still, and what it names then
        assert [method for method, asked in seen if asked == path][-3:] == ["HEAD", "PUT", "HEAD"]
    assert not [
        path
        for method, path in seen
        if method == "HEAD" and "/blobs/" in path and "flagrelease_" in path
    ]


def test_a_connection_cut_inside_a_blob_is_gone_on_with(open_site: Site) -> None:
    assert told(cut_inside_a_blob(open_site)) == ("finished", "new", "new", "new")


def test_a_burst_of_refusals_is_waited_out(open_site: Site) -> None:
    assert told(burst(open_site, 503, length=1)) == ("finished", "new", "new", "new")


def test_a_registry_that_stays_down_leaves_everything_old(open_site: Site) -> None:
    assert told(down_for_good(open_site, 60)) == ("NoAnswerError", "old", "old", "new")


def test_content_that_is_not_its_digest_is_never_promoted(open_site: Site) -> None:
    assert told(wrong_manifest(open_site)) == ("WorldError", "old", "old", "new")
    assert told(wrong_blob(open_site)) == ("WorldError", "old", "old", "new")


def test_two_promoters_on_one_host_take_turns(open_site: Site) -> None:
    ended, *states = told(two_promoters(open_site))
    assert states == ["new", "new", "new"]
    assert ended in ("exit codes [0, 0], 0 waited", "exit codes [0, 0], 1 waited")


def test_a_login_that_expires_in_the_middle_leaves_everything_old(tmp_path: Path) -> None:
    passwords = write_passwords(tmp_path / "htpasswd", "U*U")
    with site(tmp_path, passwords=passwords) as closed:
        log_in(closed, "U*U")
        row = expired_login(closed, passwords, 60)
    assert told(row) == ("NotAllowedError", "old", "old", "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_leaves_everything_old(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "small") as make_room,
        site(tmp_path, storage=tmp_path / "small") as found,
    ):
        row = full_disk(found, make_room)
    assert told(row) == ("NoAnswerError", "old", "old", "new")


def test_a_secret_is_in_no_output_journal_or_argument(tmp_path: Path) -> None:
    """The login comes from a credential helper, which notes how it was called."""
    secret = "U*U"
    passwords = write_passwords(tmp_path / "htpasswd", secret)
    program, calls = tmp_path / "docker-credential-toy", tmp_path / "calls"
    program.write_text(
        "#!/bin/sh\n"
        f'read host; echo "$@ $host" >> {calls}; cat /proc/[0-9]*/cmdline >> {calls} 2>/dev/null\n'
        f"""echo '{{"Username":"{USER}","Secret":"{secret}"}}'\n"""
    )
    program.chmod(0o755)
    with site(tmp_path, passwords=passwords) as closed:
        log_in(closed, secret)
        place = closed.place()
        config = tmp_path / "docker" / "config.json"
        config.write_text(json.dumps({"credsStore": "toy"}))
        place.environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        ran = place.run("2026.11.2")
        assert (ran.code, place.state()) == (0, "new")
    pair = b64encode(f"{USER}:{secret}".encode()).decode()
    said = [ran.output.encode(), calls.read_bytes()]
    said += [path.read_bytes() for path in place.journals.iterdir()]
    assert [text for text in said if secret.encode() in text or pair.encode() in text] == []
    assert f"get {place.target.host}" in calls.read_text(errors="replace")
