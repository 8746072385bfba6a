"""The blocks of a card as bash reads them."""

from __future__ import annotations

import ast
import json
import re
import subprocess

import pytest

from pipeline.cards.blocks import code_blocks
from pipeline.record import Record
from pipeline.stages.card import card
from tests.projects import committed
from tests.records import cpu_record, nvidia_record

RECORDS = pytest.mark.parametrize("record", [cpu_record(), nvidia_record()], ids=["cpu", "nvidia"])


def english(record: Record) -> str:
    return card(record, committed().templates)["card.en.md"].decode()


@RECORDS
def test_every_block_is_valid_bash(record: Record) -> None:
    blocks = code_blocks(english(record))
    assert {block.language for block in blocks} == {"bash"}
    for block in blocks:
        checked = subprocess.run(
            ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stderr) == (0, ""), block.text


def test_the_script_and_the_requests_survive_quotes_in_the_prompt() -> None:
    record = cpu_record()
    about = record.about.model_copy(update={"prompt": """Say "it's" in 中文"""})
    text = english(record.model_copy(update={"about": about}))
    (script,) = re.findall(r"ask.py <<'EOF'\n(from.*?)^EOF$", text, re.MULTILINE | re.DOTALL)
    constants = [n.value for n in ast.walk(ast.parse(script)) if isinstance(n, ast.Constant)]
    assert """Say "it's" in 中文""" in constants
    texts = [block.text for block in code_blocks(text)]
    (block,) = (text for text in texts if "--data" in text and "--no-buffer" not in text)
    shown = block.replace("curl", "printf '%s\\n'", 1)
    printed = subprocess.run(["bash", "-c", shown], text=True, capture_output=True, check=True)
    body = json.loads(printed.stdout[printed.stdout.index("{") :])
    assert body["messages"] == [{"role": "user", "content": """Say "it's" in 中文"""}]
