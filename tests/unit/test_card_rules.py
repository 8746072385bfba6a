"""The offline validator: every rule is broken once on a good card, and named with page and line."""

from __future__ import annotations

from functools import cache

import pytest
from modelscope.utils.constant import Frameworks, Tasks
from modelscope_hub.constants import License

from pipeline.cards.known_numbers import known_numbers, numbers_in
from pipeline.cards.metadata import HUB_LICENSES, PIPELINE_TAGS, TASKS
from pipeline.cards.page import Page
from pipeline.cards.validator import Expected, Score, faults, refuse_faulty
from pipeline.errors import StageRefusedError
from pipeline.stages.card import CARDS, card
from tests.projects import committed
from tests.records import cpu_record

TEMPLATES = committed().templates
REPOSITORY = "127.0.0.1:5000/flagrelease/flagrelease_cpu_smollm2"


@cache
def good() -> dict[str, bytes]:
    return card(cpu_record(), TEMPLATES)


def expected() -> Expected:
    """What the record says; of its numbers all that are on the good card, so that only new ones are unknown."""
    numbers = {number for name in CARDS for number in numbers_in(good()[name].decode())}
    scores = [("HellaSwag", 42.0, 41.0), ("TruthfulQA MC1", 31.0, 33.0), ("GSM8K", 4.0, 4.0)]
    return Expected(
        cell="cpu/smollm2",
        repository=REPOSITORY,
        known=frozenset(numbers),
        scores=tuple(
            Score(title=title, reference=reference, released=released)
            for title, reference, released in scores
        ),
    )


def broken(old: str, new: str, *, both: bool = True) -> tuple[str, ...]:
    """The faults of the English card after a change of all cards, or of the English one alone."""
    files = dict(good())
    for name in CARDS if both else CARDS[:1]:
        text = files[name].decode()
        assert old in text or name != CARDS[0]
        files[name] = text.replace(old, new, 1).encode()
    return tuple(str(fault) for fault in faults(files, expected()))


def line_of(text: str) -> int:
    return good()["card.en.md"].decode().split(text)[0].count("\n") + 1


def test_a_card_as_it_is_rendered_breaks_no_rule() -> None:
    assert faults(good(), expected()) == ()


BASH = "```bash\ndocker pull"
AGE = "| Start | ready after 57 s"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("license: apache-2.0\n", "", "1: front-matter: no license"),
        (
            "license: apache-2.0\n",
            "license: other\n",
            "1: front-matter: license `other` needs license_name and license_link",
        ),
        ("tasks:\n- text-generation\n", "", "1: front-matter: no tasks"),
        ("value: 41.0\n", "value: 42.0\n", "1: front-matter: model-index: HellaSwag has 42.0, the record 41.0"),
        (
            "name: HellaSwag\n",
            "name: Other\n",
            "1: front-matter: model-index: HellaSwag is only in the record",
        ),
        ("<https://anythingllm.com/>", "<http://anythingllm.com/>", "links: link 'http://anythingllm.com/': neither"),
        ("](differences.svg)", "](other.svg)", "links: link 'other.svg': neither an https address nor a file beside"),
        ("](https://github.com/flagos-ai/FlagTree)", "](https://hub/FlagTree)", "no public address"),
        ("[FlagTree](", "[](", "links: link 'https://github.com/flagos-ai/FlagTree': it has no text"),
        (BASH, "```sh\ndocker pull", "blocks: block in sh, known: bash, python"),
        (BASH, "```\ndocker pull", "blocks: block in no language"),
        (BASH, "```bash\nping <server_ip>\ndocker pull", "blocks: <server_ip> is no command"),
        (BASH, f"```bash\ndocker pull {REPOSITORY}\ndocker pull", "is named without its digest"),
        ("docker run \\\n", "docker run \\ \n", "blocks: blanks at the end of the line"),
        ("client = OpenAI(", "client == = OpenAI(", "blocks: Python: invalid syntax in its line 3"),
        ('  "model": "smollm2', '  model": "smollm2', "blocks: body of a request: Expecting property name"),
        ("| Docker | 20.10.24 |", "| Docker | 20.10.24 | more |", "tables: row of 3 cells under a head of 2"),
        ("| Docker | 20.10.24 |", "| Docker | None |", "tables: cell with None"),
        ("| GSM8K | 4.00 | 4.00 |", "| GSM8K | 4.00 | 5.00 |", "1: scores: no table has GSM8K with 4.00 and 4.00"),
        (AGE, "| Start | {{ seconds }} 57 s", "left-overs: '{{' is left from a template"),
        (AGE, "| Start | ready after 9876 s", "numbers: 9876 is no number of the record"),
        ("sha256:8e259e492588", "sha256:8e259e492589", "is no number of the record"),
        ("timeout 300", "timeout 9876", "numbers: 9876 is no number of the record"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_named(old: str, new: str, fault: str) -> None:
    found = [text for text in broken(old, new) if text.startswith("card.en.md:")]
    assert any(fault in text for text in found), found


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (AGE, "| Start | ready after 18 s", "numbers under 'SmolLM2-135M-Instruct-cpu-FlagOS': only here ['57']"),
        ("`EMPTY` (any", "`NONE` (any", "code under 'AnythingLLM': only here ['EMPTY'], only there ['NONE']"),
        ("language:\n- en", "language:\n- zh", "its front matter is not that of card.en.md"),
        ("### Stop\n", "", "headings, card.en.md has"),
        ("- Operation over hours or days, and restarts under load.\n", "", "items under '没有测试的内容'"),
        ("docker rm --force flagos", "docker rm flagos", "blocks under '停止'"),
    ],
)  # fmt: skip
def test_languages_that_say_different_facts_are_named(old: str, new: str, fault: str) -> None:
    found = broken(old, new, both=False)
    assert any("languages: " in text and fault in text for text in found), found


def test_a_fault_has_the_line_where_it_stands() -> None:
    number = line_of("| Docker | 20.10.24")
    (fault, *_) = broken("| Docker | 20.10.24 |", "| Docker | 20.10.24 | more |", both=False)
    assert fault == f"card.en.md:{number}: tables: row of 3 cells under a head of 2"


def test_all_faults_are_told_in_one_go() -> None:
    files = {name: good()[name].replace(b"20.10.24 |", b"20.10.24 | |") for name in CARDS}
    with pytest.raises(StageRefusedError) as caught:
        refuse_faulty(files, expected())
    told = str(caught.value).splitlines()
    assert told[0] == "cpu/smollm2: the card breaks 4 rules"
    assert [line.split(":")[0] for line in told[1:5]] == ["card.en.md"] * 2 + ["card.zh.md"] * 2
    assert told[5].startswith("hint: correct templates/")


def test_a_card_without_front_matter_is_refused() -> None:
    text = good()["card.en.md"].decode().split("\n---\n", 1)[1].encode()
    found = [str(fault) for fault in faults({"card.en.md": text}, expected())]
    assert "card.en.md:1: front-matter: huggingface_hub cannot read it: there is none" in found


def test_numbers_of_a_record_are_known_in_the_forms_of_cards() -> None:
    known = known_numbers({"share": 0.41, "files": [{"size_bytes": 269_060_552}], "raw": 77})
    assert {"0.41", "41.0", "41.00", "0.27", "269060552", "1"} <= known
    assert "77" not in known


def test_a_section_knows_its_tables_lists_and_blocks() -> None:
    page = Page(
        "x",
        "# A\n\n- one\n- two\n\n## B\n\n| a | b |\n| - | - |\n| 1 | `c` |\n\n```bash\nls\n```\n",
    )
    first, second = page.sections
    assert (first.title, first.level, first.items, first.tables) == ("A", 1, 2, ())
    assert (second.tables, second.code, second.blocks) == (((3, 2),), frozenset("c"), ("ls\n",))


def test_numbers_in_words_of_both_languages_are_the_same() -> None:
    english, chinese = (Page("x", f"# A\n\n{text}\n") for text in ("20 million", "2000 万"))
    assert english.sections[0].numbers == chinese.sections[0].numbers == {"20000000"}


# Words of the hubs


def test_modelscope_knows_our_words() -> None:
    assert {getattr(Tasks, task.replace("-", "_")) for task in TASKS.values()} == set(
        TASKS.values()
    )
    assert Frameworks.torch == "pytorch"
    assert {license_.value.lower() for license_ in License} >= HUB_LICENSES
    assert TASKS.keys() == PIPELINE_TAGS.keys()
