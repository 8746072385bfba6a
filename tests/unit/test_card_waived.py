"""The card of a cell whose accuracy was not decided and that somebody waived by name."""

from __future__ import annotations

from datetime import date

import pytest

from pipeline.accuracy_result import AccuracyResult
from pipeline.cards.facts import NEEDED
from pipeline.errors import StageRefusedError
from pipeline.record import Record, Status
from pipeline.stages.card import CARDS, card
from pipeline.statements import release_record
from pipeline.waiver import Waiver
from tests.projects import committed
from tests.records import cpu_record, without

TEMPLATES = committed().templates
WAIVER = Waiver(
    cell="cpu/smollm2",
    by="Ada Example",
    reason="one benchmark | has 100 items\nonly",
    expires=date(2026, 12, 31),
)
REASON = "one benchmark \\| has 100 items only"


def waived(record: Record) -> Record:
    about = record.about.model_copy(update={"waiver": WAIVER})
    return record.model_copy(update={"about": about})


def ended(status: Status, verdict: str) -> Record:
    """The accuracy of a record in which everything passed, ended otherwise."""
    record = cpu_record()
    stage = record.stages.accuracy
    assert stage is not None
    assert isinstance(stage.result, AccuracyResult)
    judged = stage.result.verdict.model_copy(
        update={"status": verdict, "sentence": f"the gate says {verdict}"}
    )
    result = stage.result.model_copy(update={"verdict": judged})
    changes = {"status": status, "result": result}
    return record.with_stage("accuracy", stage.model_copy(update=changes))


UNDECIDED = waived(ended("inconclusive", "inconclusive"))
UNMEASURED = waived(without(cpu_record(), "accuracy"))


def pages(record: Record) -> dict[str, str]:
    files = card(record, TEMPLATES)
    return {name: files[name].decode() for name in CARDS}


def evaluation(page: str) -> str:
    heading = "## Evaluation results" if "## Evaluation results" in page else "## 评测结果"
    return page.partition(heading)[2].partition("\n## ")[0]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (UNDECIDED, {"card.en.md": "undecided", "card.zh.md": "未定"}),
        (UNMEASURED, {"card.en.md": "not measured", "card.zh.md": "未测量"}),
    ],
    ids=["inconclusive", "not_run"],
)
def test_verdict_person_reason_and_last_day_stand_at_the_top_and_at_the_evaluation(
    record: Record, words: dict[str, str]
) -> None:
    for name, page in pages(record).items():
        top = page.partition("\n## ")[0].partition("\n# ")[2]
        assert top.splitlines()[2].startswith("> **")  # before anything else
        glance = next(line for line in top.splitlines() if WAIVER.by in line and line[0] == "|")
        assert words[name] in glance
        for place in (top, evaluation(page)):
            assert all(
                said in place for said in (words[name], WAIVER.by, REASON, str(WAIVER.expires))
            )


def test_an_undecided_card_shows_the_scores_and_claims_no_equality() -> None:
    page = pages(UNDECIDED)["card.en.md"]
    assert "| HellaSwag | 42.00 | 41.00 |" in page
    assert (
        "**Verdict: undecided.** The questions do not settle whether FlagOS bfloat16 is worse"
        in page
    )
    assert "> the gate says inconclusive" in page
    assert "pass: no loss" not in page


def test_an_unmeasured_card_shows_no_score_and_no_picture() -> None:
    files = card(UNMEASURED, TEMPLATES)
    assert set(files) == set(CARDS)
    page = files["card.en.md"].decode()
    assert "model-index" not in page
    assert "HellaSwag" not in page
    assert "No benchmark was run on this image" in evaluation(page)
    assert "- Accuracy: no question of a benchmark was asked." in page


@pytest.mark.parametrize(
    ("status", "verdict"), [("failed", "fail"), ("invalid", "invalid")], ids=["failed", "invalid"]
)
def test_a_waiver_never_gives_a_failed_accuracy_a_card(status: Status, verdict: str) -> None:
    with pytest.raises(StageRefusedError) as caught:
        pages(waived(ended(status, verdict)))
    assert f"accuracy: {status}" in caught.value.details


def test_a_waiver_stands_in_for_nothing_but_accuracy() -> None:
    assert list(without(UNDECIDED, "smoke").not_passed(NEEDED)) == ["smoke: not_run"]


def test_a_waiver_that_was_not_needed_is_not_on_the_card() -> None:
    assert pages(waived(cpu_record())) == pages(cpu_record())


def test_what_is_attested_says_verdict_and_waiver() -> None:
    stated = release_record(UNDECIDED)
    assert stated["verdict"]["status"] == "inconclusive"
    assert stated["record"]["about"]["waiver"]["by"] == "Ada Example"
