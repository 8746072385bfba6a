"""Names of releases."""

from __future__ import annotations

from datetime import date

import pytest

from pipeline.errors import UsageError
from pipeline.naming import check_name, is_open, newest_release, next_release, release_tag
from pipeline.record import Record
from pipeline.results import PromoteResult
from tests.record_parts import passed
from tests.records import cpu_record

TODAY = date(2026, 11, 24)


def of_release(name: str, *, promoted: bool = False) -> Record:
    record = cpu_record().model_copy(update={"release": name})
    result = PromoteResult(reference="r", tag=name, digest="d", copied_bytes=0, mounted_blobs=0)
    return record.with_stage("promote", passed(result)) if promoted else record


def test_the_calver_tag_of_a_commit_is_its_release() -> None:
    assert release_tag(["nightly", "v2026.11.24", "wip-2026"]) == "v2026.11.24"
    assert release_tag(["nightly", "1.2.3"]) is None
    assert release_tag([]) is None


@pytest.mark.parametrize("name", ["2026.11.24", "2026.11.24.1", "v2026.11.24.12", "2026.11.24-rc1"])
def test_dates_with_a_number_are_release_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["latest", "2026.1.2", "2026.11.24.1/x", "", "2026.11.24.1 "])
def test_anything_else_is_no_release_name(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert str(caught.value) == (
        f"{name} is no release name\nhint: names are dates with a number: 2026.11.24.1"
    )


def test_a_release_name_ends_where_its_line_ends() -> None:
    with pytest.raises(UsageError):
        check_name("2026.11.24.1\n")


@pytest.mark.parametrize(
    ("taken", "name"),
    [
        ([], "2026.11.24.1"),
        (["2026.11.24.1", "2026.11.24.2"], "2026.11.24.3"),
        (["2026.11.24.9", "2026.11.24.10"], "2026.11.24.11"),
        (["2026.11.24.2"], "2026.11.24.3"),  # the name below may have been yanked
        (["2026.11.23.7", "2026.11.24.1-rc1", "latest"], "2026.11.24.1"),
    ],
)
def test_the_next_release_is_the_first_number_after_those_taken_today(
    taken: list[str], name: str
) -> None:
    assert next_release(TODAY, taken) == name


def test_the_newest_release_is_newest_by_number_not_by_text() -> None:
    past = {
        "cpu/a": (of_release("2026.11.24.9"),),
        "cpu/b": (of_release("2026.11.24.10"), of_release("2026.11.24.9")),
        "cpu/c": (),
    }
    assert newest_release(past) == "2026.11.24.10"
    assert newest_release({"cpu/c": ()}) is None


def test_a_release_is_open_until_one_of_its_cells_is_promoted() -> None:
    other = (of_release("2026.11.24.1", promoted=True),)
    past = {"cpu/a": (of_release("2026.11.24.2"),), "cpu/b": other}
    assert is_open("2026.11.24.2", past)
    assert not is_open("2026.11.24.1", past)
    assert is_open("2026.11.24.3", past)


def test_the_newest_tag_of_a_commit_is_the_one_with_the_highest_number() -> None:
    assert release_tag(["2026.11.24.9", "2026.11.24.10", "nightly"]) == "2026.11.24.10"
