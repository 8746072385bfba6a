"""HumanEval (arXiv 2107.03374) asked of a chat model: the request, and the program that judges a reply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

INSTRUCTION = "Complete this Python function. Answer with the whole function in one code block."
_BLOCK = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)  # a block cut off by the limit counts


def request_text(prompt: str) -> str:
    return f"{INSTRUCTION}\n\n```python\n{prompt.rstrip()}\n```"


def code_of(reply: str, entry_point: str) -> str:
    """The block that defines the function, else the first block, else the reply as it is."""
    blocks: list[str] = _BLOCK.findall(reply)
    defining = [block for block in blocks if _defines(block, entry_point)]
    return next(iter([*defining, *blocks]), reply)


def program(code: str, case: Mapping[str, Any]) -> str:
    """Fails by an exception. A reply without the function's head is taken for its body."""
    prompt, entry_point = str(case["prompt"]), str(case["entry_point"])
    if _defines(code, entry_point):
        # Imports and functions that the prompt gives before the one that is asked for.
        given = prompt[: prompt.rindex(f"def {entry_point}")]
        code = f"{given}\n{code}"
    else:
        code = f"{prompt}\n{code}"
    return f"{code}\n\n{case['test']}\n\ncheck({entry_point})\n"


def _defines(code: str, entry_point: str) -> bool:
    return re.search(rf"^def {re.escape(entry_point)}\b", code, flags=re.MULTILINE) is not None
