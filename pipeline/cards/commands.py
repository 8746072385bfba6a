"""Commands of a card that are more than a template can put together. Pure."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.cards.facts import Measured
from pipeline.run_arguments import command_line

CONTAINER = "flagos"
LOOPBACK = ("127.0.0.1", "localhost")
# How much longer than we a reader waits for the server before looking at its log.
PATIENCE = 5


@dataclass(frozen=True, kw_only=True)
class Commands:
    image: str  # by digest, so that a moved tag changes nothing
    registry_is_local: bool
    container: str
    share: str  # folder of the weights, the same on the host and in the container
    start: str
    serve: str
    log_path: str
    base_url: str
    patience_s: int
    prompt: str  # a Python literal
    body: str  # of a chat request, quoted for the shell
    stream_body: str


def commands(measured: Measured) -> Commands:
    about, facts = measured.about, measured.facts
    released, image = about.stacks[about.released], image_reference(measured)
    share = str(PurePosixPath(about.weights_path).parent)
    return Commands(
        image=image,
        registry_is_local=about.repository.startswith(LOOPBACK),
        container=CONTAINER,
        share=share,
        start=command_line(
            about.run,
            image=image,
            name=CONTAINER,
            command=("sleep", "infinity"),
            volumes={share: share},
        ),
        serve=f"docker exec {CONTAINER} {shlex.join(released.command)}",
        log_path=released.log_path,
        base_url=f"http://127.0.0.1:{facts.port}",
        patience_s=60 * math.ceil(PATIENCE * facts.start_seconds / 60),
        prompt=json.dumps(about.prompt, ensure_ascii=False),
        body=_body(measured, stream=False),
        stream_body=_body(measured, stream=True),
    )


def image_reference(measured: Measured) -> str:
    """The public image by digest; an image that nobody can pull by its own id."""
    identity = measured.identity
    if not identity.published or identity.manifest_digest is None:
        return identity.config_digest
    return f"{measured.about.repository}@{identity.manifest_digest}"


def _body(measured: Measured, *, stream: bool) -> str:
    body: dict[str, object] = {
        "model": measured.facts.served_name,
        "messages": [{"role": "user", "content": measured.about.prompt}],
        "temperature": 0,
    }
    return shlex.quote(json.dumps(body | ({"stream": True} if stream else {}), ensure_ascii=False))
