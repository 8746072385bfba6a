"""The card from a record alone.

`UPDATE_GOLDEN=1 pytest tests/unit/test_card.py` writes tests/golden/ anew; read the difference before you commit it.
"""

from __future__ import annotations

import base64
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from huggingface_hub import ModelCard, ModelCardData
from jinja2 import nodes

from pipeline.canonical import sha256_bytes
from pipeline.cards.blocks import blocks_sha256, code_blocks
from pipeline.cards.facts import NEEDED
from pipeline.cards.known_numbers import FIXED_WORDS
from pipeline.cards.numbers import cell_text, gigabytes, points, seconds, signed_points
from pipeline.errors import StageRefusedError
from pipeline.matrix_values import Text
from pipeline.model import License
from pipeline.operator_evidence import AskedOperators, OperatorProcess, stack_operators
from pipeline.record import Record, StageName, Status
from pipeline.rehearsal import RehearsedBlock, RehearseResult, Substitution
from pipeline.results import Start
from pipeline.smoke_result import Sight
from pipeline.stages.card import CARDS, card, card_result, guide_blocks
from tests.projects import committed
from tests.record_parts import digest, passed
from tests.records import cpu_record, nvidia_record, without

ROOT = Path(__file__).parents[2]
TEMPLATES = committed().templates
GOLDEN = ROOT / "tests" / "golden"
CARD_TEMPLATES = (
    *sorted((ROOT / "templates").glob("card.*.j2")),
    *sorted((ROOT / "templates/parts/card").rglob("*[!g].j2")),  # the picture has sizes in pixels
)
RECORDS = pytest.mark.parametrize("record", [cpu_record(), nvidia_record()], ids=["cpu", "nvidia"])
# Beside fixed words of cards: what Jinja makes other text of.
TEMPLATE_WORDS = (*FIXED_WORDS, "\n1. ", "%.1f", "%.3f")


def cards(record: Record) -> dict[str, str]:
    """The texts; the picture has tests of its own."""
    files = card(record, TEMPLATES)
    return {name: files[name].decode() for name in CARDS}


def refused(record: Record) -> str:
    with pytest.raises(StageRefusedError) as caught:
        cards(record)
    return str(caught.value)


def with_stage(record: Record, name: StageName, **changes: Any) -> Record:
    stage = record.stages.get(name)
    assert stage is not None
    return record.with_stage(name, stage.model_copy(update=changes))


def with_facts(record: Record, **changes: Any) -> Record:
    smoke = record.stages.smoke
    assert smoke is not None
    assert smoke.result is not None
    assert smoke.result.facts is not None
    facts = smoke.result.facts.model_copy(update=changes)
    return with_stage(record, "smoke", result=smoke.result.model_copy(update={"facts": facts}))


def with_about(record: Record, **changes: Any) -> Record:
    return record.model_copy(update={"about": record.about.model_copy(update=changes)})


def hub_data(text: str) -> ModelCardData:
    """The front matter as huggingface_hub reads it."""
    data = ModelCard(text).data
    assert isinstance(data, ModelCardData)
    return data


# What a reader gets


@pytest.mark.parametrize("name", ["card.en.md", "card.zh.md"])
def test_the_cards_of_a_cpu_record_are_the_golden_ones(name: str) -> None:
    golden, rendered = GOLDEN / name, cards(cpu_record())[name]
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(rendered, "utf-8")
    assert rendered == golden.read_text("utf-8")


def test_a_card_is_a_pure_function_of_its_record() -> None:
    read_back = Record.model_validate_json(cpu_record().model_dump_json())
    assert cards(read_back) == cards(cpu_record())


def test_the_result_names_both_files_with_their_hashes() -> None:
    files = {"card.zh.md": "卡".encode(), "card.en.md": b"card"}
    assert [(f.path, f.sha256, f.size_bytes) for f in card_result(files).files] == [
        ("card.en.md", sha256_bytes(b"card"), 4),
        ("card.zh.md", sha256_bytes("卡".encode()), 3),
    ]


@RECORDS
def test_every_block_with_our_image_names_it_by_digest(record: Record) -> None:
    text, about = cards(record)["card.en.md"], record.about
    assert record.image is not None
    assert text.count(about.repository) == text.count(
        f"{about.repository}@{record.image.manifest_digest}"
    )


def test_a_cpu_card_says_that_flaggems_is_not_used() -> None:
    english, chinese = cards(cpu_record()).values()
    assert "**FlagGems is not used on this chip.**" in english
    assert "`dtype` (float32 against bfloat16)" in english
    assert "**在这种芯片上不使用 FlagGems。**" in chinese


def test_a_flaggems_card_names_operators_that_run_and_that_are_left_out() -> None:
    english, chinese = cards(nvidia_record()).values()
    for text in (english, chinese):
        assert "`addmm`, `mm`, `rsqrt`" in text
        assert "| `softmax` | wrong at n > 2 | 2026.11.20.1 |" in text
        assert "not used on this chip" not in text


def test_a_flaggems_card_says_how_many_operators_were_on_while_questions_were_answered() -> None:
    record = nvidia_record()
    accuracy = record.stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    asked = AskedOperators(library="flagrelease_serving.flaggems", exclude=("softmax",))
    worker = OperatorProcess(
        library=asked.library,
        rank=0,
        process=328,
        started=1.0,
        include=(),
        exclude=asked.exclude,
        available=5,
        registered=("addmm", "mm", "rsqrt", "silu"),
        calls={"mm": 7, "silu": 2},
    )
    seen = {"flagos": stack_operators(asked, ((worker,),))}
    result = accuracy.result.model_copy(update={"operators": seen})
    english, chinese = cards(with_stage(record, "accuracy", result=result)).values()
    assert "| FlagGems | 4 operators registered, 2 ran, 1 left out |" in english
    assert "4 operators were registered while the questions were answered." in english
    assert "Operators that were seen running (2): `mm`, `silu`." in english
    assert "In the smoke test 2 operators were compared with PyTorch on the CPU" in english
    assert "43 calls, 21 of them while a request was served" in english
    assert "None was wrong. `mm` came closest to the limit, with 0.10 of the error" in english
    assert "冒烟测试中，2 个算子" in chinese
    assert "| `softmax` | wrong at n > 2 | 2026.11.20.1 |" in english
    assert "| FlagGems | 注册 4 个算子，运行 2 个，排除 1 个 |" in chinese


def test_a_card_says_why_operators_were_not_compared() -> None:
    record = nvidia_record()
    smoke = record.stages.smoke
    assert smoke is not None
    assert smoke.result is not None
    update = {"operators": (), "operators_unchecked": "beads have no CPU kernels"}
    result = smoke.result.model_copy(update=update)
    english, chinese = cards(with_stage(record, "smoke", result=result)).values()
    assert "not compared with PyTorch on the CPU: beads have no CPU kernels." in english
    assert "没有与 CPU 上的 PyTorch 比较算子：beads have no CPU kernels。" in chinese


def test_a_card_says_what_has_no_power_and_what_is_small() -> None:
    text = cards(cpu_record())["card.en.md"]
    assert "**GSM8K has no power here**: x86-64 float32 scores 4.00 where guessing" in text
    assert "HellaSwag (100 questions: one is worth 1.00 points" in text
    assert "| GSM8K | 4.00 | 4.00 | +0.00 | -3.5\u00a0…\u00a0+3.5 | 100 | 1 | no power |" in text
    assert "Small sets" not in cards(nvidia_record())["card.en.md"]


def test_a_card_says_what_was_not_tested() -> None:
    text = cards(nvidia_record())["card.en.md"].partition("## What was not tested")[2]
    for said in (
        "were not executed from the page",
        "no signature",
        "Input other than text",
        "What `tool_call_parser` does for a client",
        "Loads other than 16 requests at once",
        "each question was asked once per stack",
    ):
        assert said in text


def with_rehearsal(record: Record, status: Status, **changes: Any) -> Record:
    blocks = guide_blocks(record, TEMPLATES)
    result = RehearseResult(
        blocks_sha256=blocks_sha256(blocks),
        blocks=tuple(
            RehearsedBlock(
                section=block.section,
                language=block.language,
                text=block.text,
                status="replaced" if "hf download" in block.text else "passed",
            )
            for block in blocks
        ),
        machine="Debian GNU/Linux 12, a test's",
    ).model_copy(update=changes)
    stage = passed(result).model_copy(update={"status": status})
    return record.with_stage("rehearse", stage)


def test_a_rehearsed_card_says_what_ran_and_what_was_not_as_printed() -> None:
    image = Substitution(kind="image", printed="public@sha256:1", ran="staging@sha256:1")
    weights = Substitution(kind="weights", printed="pip install x\nhf download", ran="a local copy")
    record = with_rehearsal(nvidia_record(), "passed", substitutions=(image, weights))
    english, chinese = cards(record).values()
    blocks = len(code_blocks(english))
    for said in (
        f"| Commands on this page | rehearsed: all {blocks} were executed as printed, but for 1 that",
        "in their order, by Debian GNU/Linux 12, a test's. Only this was not as printed:\n\n- the image",
        "- the weights: `a local copy` for `pip install x hf download`\n\n### How to verify",
        "- Input other than text, but for the one picture of this page. The model takes it",
        "| rehearsal of this page | 2026-11-24 05:06:07 | 123 |",
    ):
        assert said in english
    assert "were not executed from the page" not in english
    assert f"| 本页的命令 | 已经演练：全部 {blocks} 个命令块都照原样执行过，其中 1 个由" in chinese


def test_a_card_whose_commands_were_only_looked_at_is_not_rehearsed_and_says_why() -> None:
    record = with_rehearsal(cpu_record(), "not_applicable", why_not="the node has no network")
    english, chinese = cards(record).values()
    assert "| not rehearsed: the syntax of all " in english
    assert "were not executed from the page: the node has no network. The smoke test" in english
    assert "没有照着页面执行过（the node has no network）。" in chinese


def test_a_card_shows_what_the_server_said_of_pictures() -> None:
    record = nvidia_record()
    assert record.stages.smoke is not None
    assert record.stages.smoke.result is not None
    seen = (Sight(colour="red", answer="It is `red`."), Sight(colour="blue", answer="Blue"))
    result = record.stages.smoke.result.model_copy(update={"sights": seen})
    english, chinese = cards(with_stage(record, "smoke", result=result)).values()
    assert "The answers: red: `It is 'red'.`; blue: `Blue`\n" in english
    assert "回答为：红色：`It is 'red'.`；蓝色：`Blue`\n" in chinese
    untested = "- Input other than text, but for two squares of one colour each that the smoke test"
    assert untested in english
    assert "every request of smoke test, benchmarks and load was text" not in english


def test_a_rehearsal_that_failed_counts_for_nothing() -> None:
    text = cards(with_rehearsal(cpu_record(), "failed"))["card.en.md"]
    assert "| not rehearsed: written from the record, not executed from the page |" in text


def test_a_card_shows_the_starts_of_both_stacks_and_the_warm_up() -> None:
    record = nvidia_record()
    smoke, performance = record.stages.smoke, record.stages.performance
    assert smoke is not None
    assert smoke.result is not None
    assert performance is not None
    assert performance.result is not None
    cold = Start(
        stack="flagos",
        kernels="none",
        phases={"weights": 90.2, "tuning": 410},
        ready_seconds=731.4,
        answered_seconds=802,
        answer="'Paris'",
        is_good=True,
    )
    warm = cold.model_copy(update={"kernels": "kept", "phases": {}, "answered_seconds": 95.0})
    dead = cold.model_copy(update={"is_good": False, "ready_seconds": 4321.0})
    changed = smoke.result.model_copy(update={"starts": (cold, dead)})
    record = with_stage(record, "smoke", result=changed)
    loads = performance.result.model_copy(
        update={"starts": (warm,), "warm_up_seconds": {"flagos": 61.5, "native": 8.25}}
    )
    english, chinese = cards(with_stage(record, "performance", result=loads)).values()
    assert "compiled and tuned; this is not counted: `flagos` 62 s, `native` 8.2 s.\n" in english
    assert "| `flagos` | none | 731 | 802 | weights 90, tuning 410 |\n" in english
    assert "| `flagos` | kept | 731 | 95 | not told by the log |\n" in english
    assert "| `flagos` | 保留 | 731 | 95 | 日志未说明 |" in chinese
    assert "4321" not in english
    assert "First minutes" not in cards(cpu_record())["card.en.md"]


def test_a_third_stack_is_shown_beside_the_two_that_are_compared() -> None:
    record = nvidia_record()
    performance = record.stages.performance
    assert performance is not None
    assert performance.result is not None
    about = record.about.stacks["native"]
    title = Text(en="H100-CUDA, compiled", zh="H100-CUDA（编译）")
    stacks = {**record.about.stacks, "compiled": about.model_copy(update={"title": title})}
    record = record.model_copy(update={"about": record.about.model_copy(update={"stacks": stacks})})
    load = performance.result.loads[0].model_copy(
        update={"stack": "compiled", "output_tokens_per_s": 321.5, "mean_ttft_ms": 17.0}
    )
    result = performance.result.model_copy(update={"loads": (*performance.result.loads, load)})
    english, chinese = cards(with_stage(record, "performance", result=result)).values()
    assert f"| H100-CUDA, compiled | {load.concurrency} | 321.5 | 17 |" in english
    assert f"| H100-CUDA（编译） | {load.concurrency} | 321.5 | 17 |" in chinese
    assert "Measured beside them" not in cards(nvidia_record())["card.en.md"]


def test_an_image_that_cannot_be_pulled_says_so() -> None:
    record = cpu_record()
    assert record.image is not None
    local = record.image.model_copy(update={"published": False, "manifest_digest": None})
    text = cards(record.model_copy(update={"image": local}))["card.en.md"]
    assert "This image cannot be pulled" in text
    assert "| Download | no image to download (unpacked" in text
    assert "docker pull" not in text
    assert f"  {local.config_digest} sleep infinity" in text


@pytest.mark.parametrize(
    ("hub", "modelscope", "huggingface"),
    [("modelscope", " --revision 0123abc", ""), ("huggingface", "", " --revision 0123abc")],
)
def test_weights_come_from_both_hubs_and_the_measured_one_by_its_revision(
    hub: str, modelscope: str, huggingface: str
) -> None:
    record = nvidia_record()
    weights = record.stages.weights
    assert weights is not None
    assert weights.result is not None
    result = weights.result.model_copy(update={"source": f"{hub}:stepfun-ai/step3"})
    text = cards(with_stage(record, "weights", result=result))["card.en.md"]
    assert f"--model stepfun-ai/step3{modelscope} --local_dir /share/step3\n" in text
    assert f"hf download stepfun-ai/step3{huggingface} --local-dir /share/step3\n" in text
    assert "To see that you have the weights that were measured, from wherever they came:" in text


def test_a_card_says_what_the_matrix_knows_of_chip_and_model() -> None:
    english, chinese = cards(nvidia_record()).values()
    for said in (
        "| Model | 321B parameters, 38B of them active for a token; 65536 tokens of context",
        "| Cards | 8 |",
        "| Software of the vendor that the image is made for | CUDA 13.0, driver 580.65.06 |",
        "### Known problems\n\n- It needs 8 cards. (a test)\n",
        "It thinks before it answers.\nThe model's makers advise: `temperature` 0.6, `top_p` 0.95.",
        'extra_body={"stop_token_ids": [1, 73440]},',
        '  "stop_token_ids": [1, 73440],\n  "stream": true\n}',
        "FlagGems itself leaves 3 operators out on this chip, among them `sort` (a test).",
        "| The image's long name | `registry.example/flagrelease-nvidia-release-model_step3:202611",
    ):
        assert said in english
    assert "### 已知问题\n\n- 它需要 8 张卡。（a test）\n" in chinese
    assert "Known problems" not in cards(cpu_record())["card.en.md"]


def test_only_a_model_that_sees_is_asked_with_a_picture() -> None:
    text = cards(nvidia_record())["card.en.md"]
    (picture,) = re.findall(r'^picture = "(.*)"$', text, re.MULTILINE)
    header, pixels = _png(base64.b64decode(picture))
    assert header == (64, 64, 8, 2)
    assert pixels == (b"\0" + b"\xff\0\0" * 64) * 64
    assert "see.py" not in cards(cpu_record())["card.en.md"]


def _png(data: bytes) -> tuple[tuple[int, ...], bytes]:
    """Width, height, bits and kind of colour; and the pixels, line by line behind a filter byte."""
    head, body = data.index(b"IHDR") + 4, data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[body - 4 : body])
    pixels = zlib.decompress(data[body + 4 : body + 4 + length])
    return struct.unpack(">IIBB", data[head : head + 10]), pixels


def test_a_licence_that_spdx_does_not_list_has_its_name_and_its_condition() -> None:
    modified = License(
        spdx="LicenseRef-Modified-MIT",
        link="https://example.org/LICENSE",
        name="Modified MIT License",
        condition=Text(en="Show the name.", zh="须显示名称。"),
    )
    english, chinese = cards(with_about(cpu_record(), license=modified)).values()
    assert "under [Modified MIT License](https://example.org/LICENSE). Show the name." in english
    assert "[Modified MIT License](https://example.org/LICENSE)。须显示名称。" in chinese
    assert hub_data(english).license_name == "modified-mit"


# Front matter


@RECORDS
def test_the_front_matter_is_what_the_hub_reads(record: Record) -> None:
    for text in cards(record).values():
        data = hub_data(text)
        assert data.license == "apache-2.0"
        assert data.base_model == record.about.base_model
        assert data.language == list(record.about.languages)
        assert data.library_name == "vllm"
        assert {"flagos", record.chip, record.model} <= set(data.tags or [])
        assert str(hub_data(str(ModelCard(text)))) == str(data)


def test_the_front_matter_carries_the_scores_of_the_released_stack() -> None:
    data = hub_data(cards(cpu_record())["card.en.md"])
    assert data.model_name == "SmolLM2-135M-Instruct-cpu-FlagOS"
    assert [
        (r.dataset_name, r.dataset_type, r.dataset_args, r.metric_type, r.metric_value)
        for r in data.eval_results or []
    ] == [
        ("HellaSwag", "hellaswag", {"items": 100}, "accuracy", 41.0),
        ("TruthfulQA MC1", "truthfulqa", {"items": 100}, "accuracy", 33.0),
        ("GSM8K", "gsm8k", {"items": 100}, "accuracy", 4.0),
    ]


def test_a_licence_that_hubs_do_not_know_is_other_with_name_and_link() -> None:
    gemma = License(spdx="LicenseRef-Gemma", link="https://ai.google.dev/gemma/terms")
    data = hub_data(cards(with_about(cpu_record(), license=gemma))["card.en.md"])
    assert (data.license, data.license_name) == ("other", "gemma")
    assert data.license_link == "https://ai.google.dev/gemma/terms"


@pytest.mark.parametrize(
    ("modality", "tag"),
    [("text", "text-generation"), ("vision", "image-text-to-text"), ("omni", "any-to-any")],
)
def test_the_pipeline_tag_follows_the_modality(modality: str, tag: str) -> None:
    text = cards(with_about(cpu_record(), modality=modality))["card.en.md"]
    assert hub_data(text).pipeline_tag == tag


# No number but the record's


@pytest.mark.parametrize("path", CARD_TEMPLATES, ids=lambda path: str(path.name))
def test_templates_hold_no_numbers_of_their_own(path: Path) -> None:
    tree = jinja2.Environment(autoescape=False).parse(path.read_text("utf-8"))
    compared = {id(n) for c in tree.find_all(nodes.Compare) for n in c.find_all(nodes.Const)}
    texts = [str(data.data) for data in tree.find_all(nodes.TemplateData)]
    unprinted = compared | {id(n.template) for n in _included(tree)}
    texts += [str(n.value) for n in tree.find_all(nodes.Const) if id(n) not in unprinted]
    assert [text for text in texts if re.search(r"\d", _without_fixed(text))] == []


def _included(tree: nodes.Template) -> Iterator[nodes.Import | nodes.Include]:
    yield from tree.find_all(nodes.Import)
    yield from tree.find_all(nodes.Include)


def _without_fixed(text: str) -> str:
    for word in TEMPLATE_WORDS:
        text = text.replace(word, "")
    return text


# What is refused


@pytest.mark.parametrize("stage", NEEDED)
def test_a_stage_that_was_not_run_is_refused(stage: StageName) -> None:
    assert f"\n{stage}: not_run\n" in refused(without(cpu_record(), stage))


@pytest.mark.parametrize("stage", NEEDED)
def test_a_stage_that_did_not_pass_is_refused(stage: StageName) -> None:
    record = with_stage(cpu_record(), stage, status="inconclusive")
    assert f"\n{stage}: inconclusive\n" in refused(record)


def test_the_refusal_says_what_is_missing_and_what_to_do() -> None:
    record = without(without(cpu_record(), "accuracy"), "performance")
    assert refused(record) == (
        "cpu/smollm2: writing the card of release 2026.11.24.1: a fact is missing from the record\n"
        "accuracy: not_run\n"
        "performance: not_run\n"
        "hint: run `nox -s release -- cpu smollm2`, which measures it"
    )


Change = Callable[[Record], Record]
OTHER = digest("another image")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda r: with_stage(r, "weights", result=None),
            "weights: passed, but its result is missing",
        ),
        (
            lambda r: with_stage(r, "smoke", parts={"image": OTHER}),
            f"smoke: measured with image {OTHER}, this one is {digest('cpu model config')}",
        ),
        (
            lambda r: with_stage(r, "accuracy", parts={}),
            f"accuracy: measured with image none, this one is {digest('cpu model config')}",
        ),
        (
            lambda r: r.model_copy(update={"image": None}),
            f"image: the record names none, build made {digest('cpu model config')}",
        ),
        (lambda r: with_about(r, prompt=""), "about: no prompt"),
        (lambda r: with_about(r, benchmarks={}), "about: nothing is said of the benchmark gsm8k"),
        (lambda r: with_facts(r, max_model_len=0), "smoke: no max_model_len"),
        (lambda r: with_facts(r, image_os=""), "smoke: no image_os"),
        (
            lambda r: with_facts(r, packages={"torch": "2"}),
            "smoke: no version of vLLM among the packages of the image",
        ),
        (
            lambda r: with_about(r, has_flaggems=True),
            "smoke: no FlagGems operator was seen running",
        ),
    ],
)
def test_a_missing_fact_is_refused_by_name(change: Change, reason: str) -> None:
    assert f"\n{reason}\n" in refused(change(cpu_record()))


# Numbers


def test_scores_have_two_digits_and_no_negative_zero() -> None:
    assert (points(0.6569), points(-0.00001), signed_points(-0.00001)) == ("65.69", "0.00", "+0.00")
    assert (signed_points(-0.0489, 1), signed_points(0.0293, 1)) == ("-4.9", "+2.9")


def test_sizes_and_times_are_rounded_to_what_a_reader_can_use() -> None:
    sizes = (269_060_552, 16_000_000_000, 642_000_000_000)
    assert [gigabytes(size) for size in sizes] == ["0.27 GB", "16.0 GB", "642 GB"]
    assert [seconds(value) for value in (0.42, 9.96, 57.3)] == ["0.4", "10.0", "57"]


def test_text_cannot_break_a_table() -> None:
    assert cell_text("a | b\nc") == "a \\| b c"


def test_the_picture_names_every_benchmark_and_is_the_same_each_time() -> None:
    first, second = (card(cpu_record(), TEMPLATES)["differences.svg"] for _ in range(2))
    assert first == second
    for title in ("HellaSwag", "TruthfulQA MC1", "GSM8K"):
        assert title.encode() in first


def test_a_margin_that_a_low_score_made_smaller_is_told_beside_the_fixed_one() -> None:
    record = cpu_record()
    accuracy = record.stages.accuracy
    assert accuracy is not None
    assert accuracy.result is not None
    verdict = accuracy.result.verdict
    name, told = "gsm8k", {"margin": 0.02, "reference_score": 0.05}
    rows = tuple(
        row.model_copy(update=told) if row.benchmark == name else row for row in verdict.benchmarks
    )
    judged = verdict.model_copy(update={"benchmarks": rows})
    result = accuracy.result.model_copy(update={"verdict": judged})
    shrunk = cards(with_stage(record, "accuracy", result=result))
    english, chinese = "for GSM8K from 8.0 to 2.0 points.", "GSM8K 由 8.0 分缩小到 2.0 分。"
    assert english in shrunk["card.en.md"]
    assert "scores below 20.0 points, the margin shrinks" in shrunk["card.en.md"]
    assert chinese in shrunk["card.zh.md"]
    fixed = cards(record)
    assert "the margin shrinks" not in fixed["card.en.md"]
    assert "容差按得分的比例缩小" not in fixed["card.zh.md"]
