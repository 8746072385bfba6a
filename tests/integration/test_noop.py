"""A release of 48 cells with nothing to do: one HEAD for each, one list for all, and under 0.4 s of a processor."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.record import RecordStore
from pipeline.world.registry import Registry
from tests.fakes_registry import push_image
from tests.fault_proxy import Proxy, fault_proxy
from tests.finished import CELLS, RELEASE, finished_release
from tests.projects import ROOT
from tests.real_registry import real_registry

pytestmark = pytest.mark.integration
LIMIT_S = 0.4
TRIES = 3  # a busy machine may disturb one


@dataclass(frozen=True)
class Finished:
    folder: Path
    proxy: Proxy  # before the registry; sees every request

    def release(self) -> subprocess.CompletedProcess[str]:
        self.proxy.seen.clear()
        return subprocess.run(
            [sys.executable, "-m", "pipeline", "release"],
            cwd=self.folder,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def records(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.glob("out/*/*/*/record.json")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "project").mkdir()
    with real_registry(folder / "registry") as host, fault_proxy(host) as proxy:
        finished_release(folder / "project", proxy.host)
        yield Finished(folder / "project", proxy)


@pytest.fixture
def known(finished: Finished) -> Finished:
    """After a run that planned everything anew, and found nothing to do."""
    ran = finished.release()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return finished


def test_planned_anew_every_stage_of_every_cell_is_reused_and_no_record_changes(
    finished: Finished,
) -> None:
    before = finished.records()
    assert len(before) == CELLS
    ran = finished.release()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count(f"nothing changed since {RELEASE}") == CELLS * 11
    assert finished.records() == before
    assert {asked.method for asked in finished.proxy.seen} == {"HEAD", "GET"}


def test_known_it_asks_for_each_public_tag_and_the_index_once_and_for_one_list(
    known: Finished,
) -> None:
    before = known.records()
    ran = known.release()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("all 11 stages reused, nothing changed") == CELLS
    store = RecordStore(known.folder / "out")
    public = {
        f"/v2/toys/flagrelease_{chip}_{model}/manifests/{RELEASE}"
        for chip, model in (path.parts[-3:-1] for path in before)
    }
    assert store.releases("chip0", "model0") == (RELEASE,)
    heads = [asked.path for asked in known.proxy.seen if asked.method == "HEAD"]
    assert sorted(heads) == sorted({*public, f"/v2/toys/releases/manifests/rel-{RELEASE}"})
    # Nothing was ever withdrawn here, else the newest withdrawal were one HEAD more.
    (listed,) = [asked.path for asked in known.proxy.seen if asked.method != "HEAD"]
    assert listed.partition("?")[0] == "/v2/toys/releases/tags/list"
    assert known.records() == before


def test_known_it_takes_less_than_the_limit_of_a_processor(known: Finished) -> None:
    seconds = []
    for _ in range(TRIES):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        known.release()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if seconds[-1] < LIMIT_S:
            return
    raise AssertionError(f"it took {seconds} s")


def test_a_tag_that_somebody_moved_is_not_taken_for_done(known: Finished) -> None:
    repository, registry = "toys/flagrelease_chip3_model2", Registry(known.proxy.host)
    good = registry.manifest(repository, RELEASE)
    assert good is not None
    push_image(registry, repository, b"of somebody else", tag=RELEASE)
    try:
        ran = known.release()
        assert ran.returncode == 1
        assert f"{repository}:{RELEASE}" in ran.stderr
        assert "version tags exist and name other images" in ran.stderr
    finally:
        registry.put_manifest(repository, RELEASE, good.body, good.media_type)
        registry.close()
