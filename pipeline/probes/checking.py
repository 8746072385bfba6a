"""A stack served once with its operators checked by its own workers: which of them compute wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import StageRefusedError
from pipeline.probes.candidate import Candidate, Enabled
from pipeline.world.openai import OpenAI
from pipeline.world.operator_check import CHECK, OperatorCheck, ProcessCheck, parse_check
from pipeline.world.server import stop_server

INSIDE = "/var/lib/operator-check"
PACKAGE = "flagrelease_serving"
SERVING = f"/opt/flagrelease/{PACKAGE}"  # where images hold it
SLOT = 9  # a port of its own: another stack may be served meanwhile
PROMPT = "Which city is the capital of France?"
TOKENS = 8
PATIENCE_S = 60.0


def check_operators(
    candidate: Candidate, enabled: Enabled, serving: Path, say: Callable[[str], None]
) -> OperatorCheck:
    """`enabled`: the operators that are on. `serving`: the folder images/serving.

    One start, one chat completion, one request for the prompt's probabilities. A server that never gets ready is an
    answer too: what its workers wrote until then is read. Raises StageRefusedError when they wrote nothing,
    WorldError when the machine is why the server died.
    """
    folder = (candidate.folder / "check").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("check-rank*"):
        old.unlink()
    # The check of this checkout, so that an image that was made before it can be checked too.
    watched = candidate.mounting(
        {str(folder): INSIDE, str((serving / PACKAGE).resolve()): f"{SERVING}:ro"}
    )
    answer, refused = "", ""
    try:
        with watched.served(enabled, SLOT, environment={CHECK: INSIDE}) as served:
            ai = OpenAI(served.base_url, candidate.cell.served_name)
            chat = ai.chat(PROMPT, max_tokens=TOKENS)
            scored = ai.complete(PROMPT, max_tokens=1, prompt_logprobs=1)
            answer, refused = chat.text, chat.error or scored.error
            if refused:
                served.refuse_known_end()
            stop_server(served, patience_s=PATIENCE_S)
    except StageRefusedError as never_ready:
        refused = f"{never_ready.message}: {never_ready.details[-300:]}"
    found = OperatorCheck(
        cell=candidate.cell.id,
        stack=candidate.stack,
        image=candidate.image,
        excluded=tuple(sorted(candidate.operators - enabled)),
        answer=answer,
        refused=refused,
        processes=_read(folder),
    )
    if not found.processes:
        raise StageRefusedError(
            "no worker wrote a check of its operators",
            where=f"{candidate.cell.id}, stack {candidate.stack}",
            details=refused,
            hint="build the image again: its images/serving/ has no operator check, or the server died before it",
        )
    for sentence in found.sentences():
        say(sentence)
    return found


def _read(folder: Path) -> tuple[ProcessCheck, ...]:
    files = sorted(folder.glob("check-rank*.json"))
    texts = [json.loads(path.read_text("utf-8")) for path in files]
    return parse_check(json.dumps(texts), where=str(folder))
