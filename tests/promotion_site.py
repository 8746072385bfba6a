"""Where promotions meet faults: two real registries behind proxies, and what public tags say before and after."""

from __future__ import annotations

import itertools
import json
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.results import Frozen
from pipeline.world.registry import Registry
from tests.fault_proxy import Proxy, fault_proxy
from tests.promotions import NEW, OLD, Place, State
from tests.real_registry import USER, real_registry


class Row(Frozen):
    fault: str
    at: str  # which request, or where
    ended: str  # error that the promotion ended with, "killed", or "finished"
    seconds: float
    requests: int
    after_fault: State
    after_next_run: State  # that only finishes or undoes
    after_promotion: State  # that starts anew

    @property
    def is_right(self) -> bool:
        return self.after_next_run in ("old", "new") and self.after_promotion == "new"


@dataclass
class Site:
    """A staging registry, a public one, and a proxy before each; a fresh prefix for every trial."""

    folder: Path
    source: str
    target: str
    to_source: Proxy
    to_target: Proxy
    environment: dict[str, str] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def place(self, *, size_bytes: int = 1000, one_registry: bool = True) -> Place:
        """With the old generation public. In one registry blobs are mounted, between two they are sent."""
        number = next(self.numbers)
        place = Place(
            source=self.client((self.to_target if one_registry else self.to_source).host),
            target=self.client(self.to_target.host),
            prefix=f"toys{number}",
            journals=self.folder / f"promotions{number}",
            environment=self.environment,
        )
        place.stage(size_bytes)
        place.now(OLD)
        return place

    def client(self, host: str) -> Registry:
        config = Path(self.environment.get("DOCKER_CONFIG", self.folder)) / "config.json"
        return Registry(host, docker_config=config)


@contextmanager
def site(
    folder: Path, passwords: Path | None = None, storage: Path | None = None
) -> Iterator[Site]:
    with ExitStack() as stack:
        source = stack.enter_context(real_registry(folder / "source", passwords=passwords))
        target = stack.enter_context(
            real_registry(storage or folder / "target", passwords=passwords)
        )
        to_source = stack.enter_context(fault_proxy(source))
        to_target = stack.enter_context(fault_proxy(target))
        (folder / "docker").mkdir()
        yield Site(
            folder=folder,
            source=source,
            target=target,
            to_source=to_source,
            to_target=to_target,
            environment={"DOCKER_CONFIG": str(folder / "docker")},
        )


def looked_at(place: Place, fault: str, at: str, how: str, seconds: float, requests: int) -> Row:
    after_fault = place.state()
    place.now(NEW, "--only-recover")
    if not place.is_settled:
        raise RuntimeError(f"{fault}: the next run left an open journal")
    after_next_run = place.state()
    place.now(NEW)
    return Row(
        fault=fault,
        at=at,
        ended=how,
        seconds=round(seconds, 2),
        requests=requests,
        after_fault=after_fault,
        after_next_run=after_next_run,
        after_promotion=place.state(),
    )


def log_in(site: Site, password: str) -> None:
    pair = b64encode(f"{USER}:{password}".encode()).decode()
    hosts = (site.source, site.target, site.to_source.host, site.to_target.host)
    config = Path(site.environment["DOCKER_CONFIG"]) / "config.json"
    config.write_text(json.dumps({"auths": {host: {"auth": pair} for host in hosts}}))


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A tmpfs of 4 MB; what it gives makes room. Needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    try:
        yield lambda: _mount_again(folder)
    finally:
        subprocess.run(["umount", folder], check=True)


def _mount_again(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
