"""What the time until a server was ready went by, read off its log; whose kernels are kept for the next start."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pipeline.cell import KERNELS
from pipeline.record import Stages
from pipeline.serve import conditions, launch
from pipeline.world.first_minutes import phases
from tests.projects import committed, one_cell

BEGUN = datetime(2026, 11, 24, 14, 0, 0, 500_000, tzinfo=UTC)
# Lines as vLLM 0.24.0 writes them; the engine speaks with a prefix.
LOG = """\
(APIServer pid=53) INFO 11-24 14:00:20 [api_server.py:129] vLLM API server version 0.24.0
(EngineCore pid=279) INFO 11-24 14:00:31 [core.py:115] Initializing a V1 LLM engine (v0.24.0) with config: model='x'
(EngineCore pid=279) INFO 11-24 14:01:10 [default_loader.py:431] Loading weights took 0.12 seconds
(EngineCore pid=279) INFO 11-24 14:01:12 [gpu_model_runner.py:5256] Model loading took 0.26 GiB memory and 1.9 seconds
(EngineCore pid=279) INFO 11-24 14:02:40 [core.py:345] init engine (profile, create kv cache, warmup model) took 88.10 s
(APIServer pid=53) INFO:     Application startup complete.
"""


def test_phases_follow_one_another_and_their_sum_is_the_time_until_ready() -> None:
    found = phases(LOG, BEGUN, 165.0)
    assert found == {
        "imports": 30.5,
        "loading": 41.0,
        "compiling and tuning": 88.0,
        "opening the server": 5.5,
    }
    assert sum(found.values()) == 165.0


def test_a_phase_without_a_mark_falls_to_the_next_and_a_strange_log_tells_nothing() -> None:
    without = "\n".join(line for line in LOG.splitlines() if " took 0." not in line)
    assert phases(without, BEGUN, 165.0) == {
        "imports": 30.5,
        "compiling and tuning": 129.0,
        "opening the server": 5.5,
    }
    assert phases("Loading weights took long", BEGUN, 165.0) == {}
    assert phases("", BEGUN, 165.0) == {}


def test_a_start_around_new_year_and_a_line_of_another_clock() -> None:
    begun = datetime(2026, 12, 31, 23, 59, 50, tzinfo=UTC)
    line = "INFO 01-01 00:00:20 [core.py:115] Initializing a V1 LLM engine"
    assert phases(line, begun, 40.0) == {"imports": 30.0, "opening the server": 10.0}
    assert phases(LOG, BEGUN.replace(hour=15), 165.0) == {}


def test_only_stacks_that_compile_or_tune_get_the_folder_of_kernels(tmp_path: Path) -> None:
    cell = one_cell(committed(), "nvidia", "smollm2")
    kept = launch(cell, "flagos", "image", tmp_path, tmp_path / "kernels").volumes
    assert kept[str(tmp_path / "kernels")] == KERNELS
    assert KERNELS not in launch(cell, "flagos", "image", tmp_path).volumes.values()
    assert KERNELS not in launch(cell, "native", "image", tmp_path, tmp_path).volumes.values()
    assert cell.environment("flagos")["TRITON_CACHE_DIR"].startswith(KERNELS)
    assert not {"TRITON_CACHE_DIR", "FLAGGEMS_CACHE_DIR"} & cell.environment("native").keys()
    assert f"smollm2-nvidia-flagos-kernels:{KERNELS}" in cell.user_run.volumes
    assert not any(KERNELS in volume for volume in cell.run.volumes)


def test_where_kernels_lie_is_no_difference_of_conditions() -> None:
    cell = one_cell(committed(), "nvidia", "smollm2")
    assert conditions(cell, "flagos", Stages()) == conditions(cell, "native", Stages())
