"""The commands of README and docs that need an engine, run as printed after a real release.

They promote to a registry of their own: `yank` and `rollback` of the shared one would forbid its images for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pipeline.world.registry import Registry
from tests.documents import RELEASE, Page, commit_all, page, pages, run_step
from tests.integration.conftest import CELL, Checkout, copy_of_released, take_over_environment
from tests.real_registry import real_registry

pytestmark = pytest.mark.integration
LAST = page("docs/roll-back.md")  # takes back what the others look at
SHARED = "127.0.0.1:5000/flagrelease"


@dataclass(frozen=True)
class Site:
    """A checkout with a release that is promoted to a registry of ours alone."""

    checkout: Checkout
    prefix: str  # of that registry, where pages name the shared one
    release: str


@pytest.fixture(scope="module")
def site(released: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("documents")
    with real_registry(folder / "registry") as host:
        prefix = f"{host}/flagrelease"
        checkout = copy_of_released(released, folder / "checkout")
        own = f"registry: {prefix}\n    staging: {SHARED}/staging\n"
        checkout.edit(f"registry: {SHARED}\n", own)
        take_over_environment(checkout.root)
        commit_all(checkout.root)
        day, _, number = released.record().release.rpartition(".")
        release = f"{day}.{int(number) + 1}"
        ran = checkout.run("release", *CELL, "--release", release)
        assert ran.code == 0, ran.output
        yield Site(checkout, prefix, release)


@pytest.mark.parametrize(
    "one",
    [*(one for one in pages() if one.steps("engine") and one != LAST), LAST],
    ids=lambda one: one.name,
)
def test_the_commands_of_a_page_run_after_a_release(one: Page, site: Site) -> None:
    for block in one.steps("engine"):
        run_step(block, site.checkout.root, {SHARED: site.prefix, RELEASE: site.release}, {})


def test_the_pages_took_the_release_back(site: Site) -> None:
    """The last page leaves no version tag, tombstones beside the record, cards that say so, and the release before."""
    folder = site.checkout.root / "out" / site.release / "/".join(CELL)
    assert (folder / "tombstone.json").exists()
    assert "> **Withdrawn: do not use this image.**" in (folder / "card.en.md").read_text("utf-8")
    (shown,) = (site.checkout.root / "out/hub").glob("*/README.md")
    assert "Withdrawn" not in shown.read_text("utf-8")
    assert f"release `{site.release}`" not in shown.read_text("utf-8")
    registry = Registry(site.prefix.partition("/")[0])
    assert site.release not in registry.tags("flagrelease/flagrelease_cpu_smollm2")
    registry.close()
