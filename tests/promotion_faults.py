"""Every fault of the promotion table, done for real: a killed program, a cut connection, a full disk …

Each gives one row: what public tags say right after the fault, and after the next run that only finishes or undoes.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tests.fault_proxy import Answer, Asked, Call, Cut, Fault, Spoil
from tests.promotion_site import Row, Site, log_in, looked_at
from tests.promotions import NEW, Place, ended
from tests.real_registry import write_passwords

SEED = 20261124


def with_rule(
    site: Site, place: Place, fault: str, at: str, rule: Callable[[Asked], Fault], **more: bool
) -> Row:
    """Promote the new generation while the proxies do what a rule says; then look, recover, look, promote, look."""
    on_source = more.get("on_source", False)
    proxy = site.to_source if on_source else site.to_target
    other = site.to_target if on_source else site.to_source
    proxy.seen.clear()
    proxy.rule, other.rule = rule, lambda _: None
    ran = place.run(NEW)
    proxy.rule = lambda _: None
    how = "killed" if ran.code == -9 else ran.error or "finished"
    return looked_at(place, fault, at, how, ran.seconds, len(proxy.seen))


def requests_of_a_promotion(site: Site) -> int:
    place = site.place()
    site.to_target.seen.clear()
    place.run(NEW)
    return len(site.to_target.seen)


def kill_points(requests: int, count: int) -> list[tuple[int, bool]]:
    """Requests before or after which to kill, random and the same every time."""
    chosen = random.Random(SEED)
    return [(chosen.randint(1, requests), chosen.random() < 0.5) for _ in range(count)]


def killed(site: Site, point: int | Callable[[Asked], bool], *, is_before: bool) -> Row:
    """`kill -9` of the promoter before its n-th or such a request reaches the registry, or when that has answered."""
    place, proxy = site.place(), site.to_target
    victim: list[subprocess.Popen[str]] = []
    waiting = time.monotonic()

    def kill() -> None:
        while not victim and time.monotonic() - waiting < 30:
            time.sleep(0.01)
        victim[0].kill()

    proxy.seen.clear()
    when: Literal["instead", "after"] = "instead" if is_before else "after"

    def is_at(asked: Asked) -> bool:
        return asked.number == point if isinstance(point, int) else point(asked)

    proxy.rule = lambda asked: Call(kill, when) if is_at(asked) else None
    started = time.monotonic()
    victim.append(place.start(NEW))
    ran = ended(victim[0], started)
    proxy.rule = lambda _: None
    asked = next(filter(is_at, proxy.seen), None)
    name = (
        f"{asked.number}: {asked.method} {asked.path.partition('?')[0]}"
        if asked
        else f"{point}: never"
    )
    at = f"{'before' if is_before else 'after'} request {name}"
    how = "killed" if ran.code == -9 else ran.error or "finished"
    return looked_at(place, "kill -9", at, how, ran.seconds, len(proxy.seen))


def cut_inside_a_blob(site: Site) -> Row:
    """The first three blob bodies break off in the middle."""
    place = site.place(size_bytes=300_000, one_registry=False)
    bodies = itertools.count(1)

    def rule(asked: Asked) -> Fault:
        is_large = asked.is_blob_body and asked.size_bytes > 100_000
        return Cut() if is_large and next(bodies) <= 3 else None

    return with_rule(site, place, "connection cut in the middle of a blob", "3 blobs", rule)


def burst(site: Site, status: int, length: int = 3) -> Row:
    """Every method and kind of thing is refused a few times in a row before it is answered."""
    place = site.place(one_registry=False)
    counts: dict[str, int] = {}

    def rule(asked: Asked) -> Fault:
        kind = f"{asked.method} {'blobs' if '/blobs/' in asked.path else 'manifests'}"
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] > length:
            return None
        return Answer(status, (("Retry-After", "1"),) if status == 429 else ())

    return with_rule(site, place, f"burst of {status}", f"{length} of each kind of request", rule)


def down_for_good(site: Site, number: int) -> Row:
    """From one request on, every answer is 503."""
    place = site.place()

    def rule(asked: Asked) -> Fault:
        return Answer(503) if asked.number >= number else None

    return with_rule(site, place, "503 that stays", f"from request {number} on", rule)


def wrong_manifest(site: Site) -> Row:
    place = site.place(one_registry=False)

    def rule(asked: Asked) -> Fault:
        return Spoil() if asked.method == "GET" and "/manifests/sha256:" in asked.path else None

    return with_rule(
        site, place, "wrong digest", "manifests read from staging", rule, on_source=True
    )


def wrong_blob(site: Site) -> Row:
    place = site.place(one_registry=False)

    def rule(asked: Asked) -> Fault:
        return Spoil() if asked.method == "GET" and "/blobs/" in asked.path else None

    return with_rule(site, place, "wrong digest", "blobs read from staging", rule, on_source=True)


def full_disk(site: Site, make_room: Callable[[], None]) -> Row:
    """The public registry's disk does not hold the new generation; afterwards it does."""
    place = site.place(size_bytes=200_000, one_registry=False)
    site.to_target.seen.clear()
    ran = place.run(NEW)
    requests = len(site.to_target.seen)
    after = place.state()
    make_room()
    how = ran.error or "finished"
    row = looked_at(
        place,
        "full disk",
        "tmpfs of 4 MB under the public registry",
        how,
        ran.seconds,
        requests,
    )
    return row.model_copy(update={"after_fault": after})


def expired_login(site: Site, passwords: Path, number: int) -> Row:
    """The password is changed while the promotion runs; afterwards the user logs in again."""
    log_in(site, "U*U")
    write_passwords(passwords, "U*U")
    place = site.place()

    def expire() -> None:
        write_passwords(passwords, "U*U*")
        time.sleep(1.1)  # docker-registry reads the file anew when its time has changed

    proxy = site.to_target
    proxy.seen.clear()
    proxy.rule = lambda asked: Call(expire, "before") if asked.number == number else None
    ran = place.run(NEW)
    proxy.rule = lambda _: None
    log_in(site, "U*U*")
    place = Place(
        source=site.client(site.to_target.host),
        target=site.client(site.to_target.host),
        prefix=place.prefix,
        journals=place.journals,
        environment=place.environment,
    )
    how, at = ran.error or "finished", f"before request {number}"
    return looked_at(place, "expired credentials", at, how, ran.seconds, len(proxy.seen))


def two_promoters(site: Site) -> Row:
    """Both start at once; one waits for the other and finds nothing left to do."""
    place, started = site.place(), time.monotonic()
    site.to_target.seen.clear()
    both = [place.start(NEW) for _ in range(2)]
    rans = [ended(process, started) for process in both]
    codes = [ran.code for ran in rans]
    waited = sum("waiting for process" in ran.output for ran in rans)
    how = f"exit codes {codes}, {waited} waited"
    return looked_at(
        place,
        "two promoters at once",
        "one host",
        how,
        max(ran.seconds for ran in rans),
        len(site.to_target.seen),
    )
