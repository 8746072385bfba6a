"""Load runs inside the served container, and the label that they give."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.cell import Cell
from pipeline.errors import StageRefusedError
from pipeline.results import LoadResult, PerformanceRatio, PerformanceResult, Start
from pipeline.stages.performance import Kept, bench_command, performance
from pipeline.world.server import Served
from tests.fakes import FakeContainer, ServingImage
from tests.projects import one_cell, toy_project

RAW = {
    "completed": 2,
    "output_throughput": 20.004,
    "total_token_throughput": 60.0,
    "mean_ttft_ms": 12.34,
    "mean_tpot_ms": 1.237,
}


def cell_of(folder: Path) -> Cell:
    return one_cell(
        toy_project(folder, ("{concurrency: [1, 4], input", "{concurrency: [1], input")),
        *("abacus", "poet"),
    )


def image_of(**fields: Any) -> ServingImage:
    return ServingImage(port=9010, log="INFO: one\nINFO: two\n", **fields)


def start_of(stack: str) -> Start:
    return Start(
        stack=stack,
        kernels="none",
        phases={},
        ready_seconds=1,
        answered_seconds=2,
        answer="'four'",
        is_good=True,
    )


def measured(
    cell: Cell, images: dict[str, ServingImage], kept: Kept | None = None
) -> PerformanceResult:
    @contextmanager
    def serve(stack: str) -> Iterator[tuple[Served, Start]]:
        served = Served(
            container=FakeContainer(stack, images[stack], ()),
            begun=0,
            begun_at=datetime(2026, 11, 24, tzinfo=UTC),
            base_url="http://127.0.0.1:9010",
            log_path="/var/log/serve.output",
            launcher_seconds=0,
            ready_seconds=0,
            launcher_output="",
        )
        yield served, start_of(stack)

    with tempfile.TemporaryDirectory() as folder:
        kept = kept or Kept(Path(folder), "a key")
        return performance(cell, cell.stacks, serve, kept, lambda _: None)


def test_a_stack_that_was_measured_before_the_run_was_cut_off_is_not_served_again(
    tmp_path: Path,
) -> None:
    cell, kept = cell_of(tmp_path), Kept(tmp_path / "run", "a key")
    kept.folder.mkdir()
    broken = image_of(bench_result={**RAW, "completed": 1})
    with pytest.raises(StageRefusedError):
        measured(cell, {"slow": image_of(bench_result=RAW), "fast": broken}, kept)
    fast = image_of(bench_result={**RAW, "output_throughput": 16.0032})
    slow_again = image_of(bench_result={**RAW, "output_throughput": 1})
    of_another_key = measured(
        cell, {"slow": slow_again, "fast": fast}, Kept(tmp_path / "run", "another key")
    )
    assert of_another_key.loads[0].output_tokens_per_s == 1
    with pytest.raises(StageRefusedError):
        measured(cell, {"slow": image_of(bench_result=RAW), "fast": broken}, kept)
    result = measured(cell, {"fast": fast}, kept)
    assert result.lowest_ratio == 0.8
    assert [start.stack for start in result.starts] == ["slow", "fast"]
    assert not list(kept.folder.iterdir())


def test_where_kernels_are_tuned_every_stack_has_its_load_once_uncounted(tmp_path: Path) -> None:
    for name in ("plain", "tunes"):
        (tmp_path / name).mkdir()
    plain = cell_of(tmp_path / "plain")
    tunes = toy_project(
        tmp_path / "tunes",
        ("{concurrency: [1, 4], input", "{concurrency: [1], input"),
        ('env: {FAST: "1"}', 'env: {FAST: "1"}\n        kernel_caches: [TRITON_CACHE_DIR]'),
    )
    runs = {}
    for name, cell in (("plain", plain), ("tunes", one_cell(tunes, "abacus", "poet"))):
        images = {stack: image_of(bench_result=RAW) for stack in cell.stacks}
        result = measured(cell, images)
        runs[name] = [(len(image.warm_ups), image.loads) for image in images.values()]
        assert len(result.loads) == 2
        assert set(result.warm_up_seconds) == (set() if name == "plain" else {"slow", "fast"})
    assert runs == {"plain": [(0, 1), (0, 1)], "tunes": [(1, 1), (1, 1)]}


def test_a_warm_up_that_fails_says_what_it_said(tmp_path: Path) -> None:
    tunes = ('env: {FAST: "1"}', 'env: {FAST: "1"}\n        kernel_caches: [TRITON_CACHE_DIR]')
    cell = one_cell(toy_project(tmp_path, tunes), "abacus", "poet")
    text = refusal(cell, image_of(benched=(1, "Initial test run failed"), bench_result=RAW))
    assert "abacus/poet slow: warming up: the load run ended with exit code 1" in text
    assert "Initial test run failed" in text


def refusal(cell: Cell, image: ServingImage) -> str:
    with pytest.raises(StageRefusedError) as caught:
        measured(cell, {"slow": image})
    return str(caught.value)


@pytest.mark.parametrize(
    ("speed", "ratio", "label"), [(16.0032, 0.8, "on par"), (15.9, 0.795, "slower")]
)
def test_the_lowest_ratio_to_the_reference_makes_the_label(
    tmp_path: Path, speed: float, ratio: float, label: str
) -> None:
    fast = {**RAW, "output_throughput": speed}
    result = measured(
        cell_of(tmp_path),
        {"slow": image_of(bench_result=RAW), "fast": image_of(bench_result=fast)},
    )
    assert result.loads[0] == LoadResult(
        stack="slow",
        concurrency=1,
        requests=2,
        failed=0,
        output_tokens_per_s=20.0,
        total_tokens_per_s=60.0,
        mean_ttft_ms=12.3,
        mean_tpot_ms=1.24,
        raw=RAW,
    )
    assert result.ratios == (PerformanceRatio(concurrency=1, ratio=ratio),)
    assert (result.lowest_ratio, result.label_floor, result.label) == (ratio, 0.8, label)


def test_a_load_run_that_fails_shows_its_end_and_the_servers_last_lines(tmp_path: Path) -> None:
    cell = cell_of(tmp_path)
    image = image_of(benched=(1, "nanobind: leaked\nConnectionRefusedError\n"))
    assert refusal(cell, image) == (
        f"abacus/poet slow: {' '.join(bench_command(cell, 1))}:"
        " the load run ended with exit code 1\nConnectionRefusedError\n"
        "hint: the server's last lines: INFO: one\nINFO: two"
    )


def test_requests_lost_under_load_are_refused(tmp_path: Path) -> None:
    image = image_of(bench_result={**RAW, "completed": 1})
    assert refusal(cell_of(tmp_path), image) == (
        "abacus/poet slow at concurrency 1: 1 of 2 requests failed under load\nINFO: one\nINFO: two"
    )


def test_a_load_run_that_made_no_tokens_is_refused(tmp_path: Path) -> None:
    image = image_of(bench_result={**RAW, "output_throughput": 0})
    assert "the load run counted no output tokens" in refusal(cell_of(tmp_path), image)


def test_a_result_file_without_a_figure_is_refused(tmp_path: Path) -> None:
    image = image_of(bench_result={**RAW, "mean_ttft_ms": float("nan")})
    assert "the load run has no figure for mean_ttft_ms" in refusal(cell_of(tmp_path), image)


def test_a_figure_that_is_no_number_is_kept_as_null(tmp_path: Path) -> None:
    found = {**RAW, "p99_itl_ms": float("nan")}
    images = {stack: image_of(bench_result=found) for stack in ("slow", "fast")}
    result = measured(cell_of(tmp_path), images)
    assert [load.raw["p99_itl_ms"] for load in result.loads] == [None, None]


def test_the_load_run_asks_the_served_model_with_the_profile_of_the_matrix(tmp_path: Path) -> None:
    command = bench_command(one_cell(toy_project(tmp_path), "abacus", "poet"), 4)
    options = dict(zip(command[3::2], command[4::2], strict=False))
    assert command[:3] == ["vllm", "bench", "serve"]
    assert {name: options.get(name) for name in ("--model", "--tokenizer", "--base-url")} == {
        "--model": "poet-abacus-flagos",
        "--tokenizer": "/share/poet",
        "--base-url": "http://127.0.0.1:9010",
    }
    assert (options["--num-prompts"], options["--max-concurrency"]) == ("8", "4")
