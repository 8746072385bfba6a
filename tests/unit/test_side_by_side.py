"""The table of benchmarks/README.md says what the kept results say."""

from __future__ import annotations

from benchmarks.side_by_side import README, TABLE, SideBySide, Timed, results, table


def test_the_table_is_that_of_the_results() -> None:
    found = TABLE.search(README.read_text("utf-8"))
    assert found is not None
    assert found[0] == table(results())


def test_every_comparison_has_five_runs_of_each_way() -> None:
    for one in results():
        assert len(one.ways) >= 2, one.what
        assert all(len(way.seconds) >= 5 for way in one.ways), one.what


def test_ratios_are_those_of_medians() -> None:
    ways = (Timed(way="ours", seconds=(1.0, 9.0, 2.0)), Timed(way="other", seconds=(3.0, 5.0, 4.0)))
    one = SideBySide(
        what="a race", command="python -m race", machine="m", versions={}, load=(0.5,), ways=ways
    )
    assert table([one]).splitlines()[2:] == [
        "| a race | ours | 2.00 | 1.00 to 9.00 | 1.0 × |",
        "|  | other | 4.00 | 3.00 to 5.00 | 2.0 × |",
    ]
