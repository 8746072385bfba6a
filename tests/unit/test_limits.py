"""`--jobs`: what of it is taken, and every fault in one go."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.limits import limits_of
from tests.projects import committed

CHIPS = committed().matrix.chips


def test_nothing_given_is_one_build_and_four_pushes() -> None:
    assert limits_of("", CHIPS) == {"build": 1, "push": 4}


def test_what_is_given_goes_over_the_defaults() -> None:
    given = "build=2, gpu:nvidia=3,cpu=2"
    assert limits_of(given, CHIPS) == {"build": 2, "push": 4, "gpu:nvidia": 3, "cpu": 2}


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(UsageError) as refused:
        limits_of("bild=1,push=0,push=x,gpu:nvidia,cpu=2,cpu=3,,build=65", CHIPS)
    assert refused.value.details.splitlines() == [
        "bild=1: no resource is called so, did you mean build?",
        "push=0: expected a whole number from 1 to 64 after =",
        "push=x: expected a whole number from 1 to 64 after =",
        "gpu:nvidia: expected a whole number from 1 to 64 after =",
        "cpu=2: given 2 times",
        "cpu=3: given 2 times",
        f"(nothing): no resource is called so, known: {', '.join(sorted(_known()))}",
        "build=65: expected a whole number from 1 to 64 after =",
    ]
    assert refused.value.message == "8 of 8 limits cannot be used"


def test_every_chip_with_cards_has_a_resource_of_its_own() -> None:
    assert _known() == {"build", "push", "cpu", *(f"gpu:{chip}" for chip in CHIPS if chip != "cpu")}


def _known() -> set[str]:
    with pytest.raises(UsageError) as refused:
        limits_of("?", CHIPS)
    return set(refused.value.hint.partition("resources: ")[2].split(", "))
