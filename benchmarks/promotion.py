"""48 staged cells made public: promote, and `skopeo copy` in a loop.

    python -m benchmarks.promotion

Needs docker-registry and skopeo. The cells are small images, four layers each, three of them shared by the cells of a
chip, as those of its runtime are. Staging and public repositories lie in one registry. Both ways are timed as programs,
with their start. Ours is given digests, as records have them; it also reads every manifest back, writes index and
journal and moves `latest`. Skopeo is given tags, and sets one tag a cell.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from pipeline.admission import Candidate, Release
from pipeline.stages.promote import promote
from pipeline.world.registry import Registry
from pipeline.world.shelf import Shelf
from tests.fakes_registry import gated_record, push_image
from tests.promoter import public_of, staging_of

CELLS = tuple(f"chip{chip}/model{model}" for chip in range(8) for model in range(6))
LAYER_BYTES = 100_000
RELEASE, STAGED = "2026.11.24.1", "b-1"
RUNS = 5


def main() -> None:
    # Not at the top: the program that is timed needs none of it.
    from benchmarks.side_by_side import SideBySide, in_turns, keep, machine, version
    from tests.real_registry import real_registry

    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder, real_registry(Path(folder)) as host:
        registry = Registry(host)

        def staged() -> tuple[str, dict[str, str]]:
            prefix = f"toys{next(numbers)}"
            return prefix, stage(registry, prefix)

        def ours() -> float:
            prefix, digests = staged()
            place = Path(folder) / prefix
            place.mkdir()
            (place / "digests.json").write_text(json.dumps(digests))
            words = [sys.executable, "-m", "benchmarks.promotion", host, prefix, str(place)]
            started = time.perf_counter()
            subprocess.run(words, check=True)
            return checked(registry, prefix, time.perf_counter() - started)

        def skopeo() -> float:
            prefix, _ = staged()
            words = ["skopeo", "copy", "--quiet", "--insecure-policy"]
            words += ["--src-tls-verify=false", "--dest-tls-verify=false"]
            started = time.perf_counter()
            for cell in CELLS:
                source = f"docker://{host}/{staging_of(prefix, cell)}:{STAGED}"
                target = f"docker://{host}/{public_of(prefix, cell)}:{RELEASE}"
                subprocess.run([*words, source, target], check=True)
            return checked(registry, prefix, time.perf_counter() - started)

        ways, load = in_turns({"promote": ours, "skopeo copy in a loop": skopeo}, RUNS)
        registry.close()
    keep(
        "promotion",
        SideBySide(
            what=f"promotion of {len(CELLS)} cells within one registry",
            command="python -m benchmarks.promotion",
            machine=machine(),
            versions={"skopeo": version("skopeo", "--version")},
            load=load,
            ways=ways,
        ),
    )


def stage(registry: Registry, prefix: str) -> dict[str, str]:
    """Digests by cell."""
    runtimes: dict[str, list[bytes]] = {}
    digests = {}
    for cell in CELLS:
        chip = cell.partition("/")[0]
        shared = runtimes.setdefault(chip, [layer(LAYER_BYTES) for _ in range(3)])
        place = staging_of(prefix, cell)
        digests[cell] = push_image(registry, place, *shared, layer(2000), tag=STAGED)
    return digests


def layer(size_bytes: int) -> bytes:
    """Gzip, as skopeo compresses what is not."""
    return gzip.compress(os.urandom(size_bytes), 1)


def checked(registry: Registry, prefix: str, took_s: float) -> float:
    for cell in CELLS:
        staged = registry.head(staging_of(prefix, cell), STAGED)
        if staged is None or registry.head(public_of(prefix, cell), RELEASE) != staged:
            raise SystemExit(f"{cell} is not public")
    return took_s


def promote_all(host: str, prefix: str, place: str) -> None:
    registry = Registry(host)
    digests = json.loads(Path(place, "digests.json").read_bytes())
    candidates = [
        Candidate(
            record=gated_record(digests[cell], cell),
            source=registry,
            source_repository=staging_of(prefix, cell),
            public=public_of(prefix, cell),
        )
        for cell in CELLS
    ]
    shelf = Shelf(registry=registry, index_repository=f"{prefix}/releases", journals=Path(place))
    promote(
        Release(name=RELEASE, candidates=candidates, left_out={}),
        shelf,
        today=date(2026, 11, 24),
        say=lambda _: None,
    )


if __name__ == "__main__":
    promote_all(*sys.argv[1:]) if sys.argv[1:] else main()
