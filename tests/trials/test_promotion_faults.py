"""Every fault of docs/registry.md, and `kill -9` at 20 random points; writes the record and the page's table."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.canonical import canonical, write_whole
from pipeline.world.node import processor
from tests.promoter import CELLS
from tests.promotion_faults import (
    SEED,
    burst,
    cut_inside_a_blob,
    down_for_good,
    expired_login,
    full_disk,
    kill_points,
    killed,
    requests_of_a_promotion,
    two_promoters,
    wrong_blob,
    wrong_manifest,
)
from tests.promotion_site import Row, Site, log_in, site, small_disk
from tests.real_registry import PROGRAM, write_passwords
from tests.trials.promotion_record import (
    END,
    KILLS,
    PAGE,
    PROMOTION_RECORD,
    START,
    PromotionFaults,
    table,
)

pytestmark = pytest.mark.trials


def test_promotion_through_every_fault(tmp_path: Path) -> None:
    with site(tmp_path / "open") as found:
        requests = requests_of_a_promotion(found)
        rows = [*_kills(found, requests), *_faults(found, requests)]
    rows += _expired(tmp_path / "closed", requests)
    rows.append(_full(tmp_path / "full"))
    record = PromotionFaults(
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        node=f"{processor()} x{os.cpu_count()}",
        registry=_version(),
        cells=len(CELLS),
        requests=requests,
        seed=SEED,
        rows=tuple(rows),
    )
    write_whole(PROMOTION_RECORD, canonical(record.model_dump(mode="json")) + b"\n")
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    page = f"{before}{START}{table(record)}{END}{rest.partition(END)[2]}"
    write_whole(PAGE, page.encode())
    assert [row for row in rows if not row.is_right] == []


def _kills(found: Site, requests: int) -> Iterator[Row]:
    for number, is_before in kill_points(requests, KILLS):
        yield killed(found, number, is_before=is_before)


def _faults(found: Site, requests: int) -> Iterator[Row]:
    yield cut_inside_a_blob(found)
    for status in (500, 502, 503, 429):
        yield burst(found, status)
    yield down_for_good(found, requests // 3)
    yield down_for_good(found, requests - 20)
    yield wrong_manifest(found)
    yield wrong_blob(found)
    yield two_promoters(found)


def _expired(folder: Path, requests: int) -> Iterator[Row]:
    folder.mkdir()
    passwords = write_passwords(folder / "htpasswd", "U*U")
    with site(folder, passwords=passwords) as closed:
        log_in(closed, "U*U")
        for number in (requests // 3, requests - 20):
            yield expired_login(closed, passwords, number)


def _full(folder: Path) -> Row:
    folder.mkdir()
    disk = folder / "small"
    with small_disk(disk) as make_room, site(folder, storage=disk) as found:
        return full_disk(found, make_room)


def _version() -> str:
    said = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True)
    return said.stdout.split()[-1]
