"""What the user guide of a card is filled with: every command, and the values that its sentences name. Pure."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.cards.facts import Measured
from pipeline.model import Chat, Weights
from pipeline.pictures import QUESTION
from pipeline.results import FileHash
from pipeline.run_arguments import command_line

CONTAINER = "flagos"
LOOPBACK = ("127.0.0.1", "localhost")
HUBS: Mapping[str, str] = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}
# How much longer than we a reader waits for the server before looking at its log.
PATIENCE = 5
# A red square of 64 × 64 pixels, as PNG: a request with a picture that needs no file and no network.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAS0lEQVR42u3PQQkAAAgAsetfWiP4FgYrsKZeS0BA"
    "QEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEDgsqnc8OJg6Ln3AAAAAElFTkSuQmCC"
)


@dataclass(frozen=True, kw_only=True)
class HubWeights:
    """The weights on one hub."""

    hub: str  # modelscope or huggingface
    title: str
    repository: str
    revision: str | None  # the one that was measured; None: this hub was not used


@dataclass(frozen=True, kw_only=True)
class Guide:
    image: str  # by digest where one is known, so that a moved tag changes nothing
    is_pullable: bool
    registry_is_local: bool
    container: str
    share: str  # folder of the weights, the same on the host and in the container
    weights: Weights
    weights_path: str
    hubs: tuple[HubWeights, ...]
    files: tuple[FileHash, ...]  # of the weights as served
    start: str
    serve: str
    log_path: str | None
    base_url: str
    patience_s: int
    served_name: str
    port: int
    prompt: str
    messages: tuple[str, ...]  # Python literals
    extra_body: str | None  # a Python literal: what the OpenAI client has no argument for
    body: str  # of a chat request, quoted for the shell
    stream_body: str
    picture: str | None  # base64 of a PNG; None: the model does not see
    images_per_request: int | None  # None: the server's default
    openai_version: str | None  # of the client in the image
    versions: Mapping[str, str]  # distributions to find in the image, as it was measured
    max_model_len: int

    @property
    def picture_question(self) -> str:
        return QUESTION

    @property
    def answer_tokens(self) -> int:
        """Leaves three quarters of the window for question and history."""
        return self.max_model_len // 4


def measured_guide(measured: Measured) -> Guide:
    about, facts = measured.about, measured.facts
    released, image = about.stacks[about.released], image_reference(measured)
    share = str(PurePosixPath(about.weights_path).parent)
    messages = [{"role": "user", "content": about.prompt}]
    return Guide(
        image=image,
        is_pullable=measured.identity.published,
        registry_is_local=about.repository.startswith(LOOPBACK),
        container=CONTAINER,
        share=share,
        weights=about.weights,
        weights_path=about.weights_path,
        hubs=hub_weights(
            about.weights, measured.weights.source, measured.weights.source_sha256 or None
        ),
        files=measured.weights.files,
        start=command_line(
            about.run,
            image=image,
            name=CONTAINER,
            command=("sleep", "infinity"),
            volumes={share: share},
        ),
        serve=serve_line(released.command),
        log_path=released.log_path,
        base_url=base_url(facts.port),
        patience_s=60 * math.ceil(PATIENCE * facts.start_seconds / 60),
        served_name=facts.served_name,
        port=facts.port,
        prompt=about.prompt,
        messages=literals(messages),
        extra_body=json.dumps(extra) if (extra := extra_body(about.chat)) else None,
        body=body(facts.served_name, messages, extra),
        stream_body=body(facts.served_name, messages, {**extra, "stream": True}),
        picture=None if about.modality == "text" else PICTURE,
        images_per_request=images_per_request(released.arguments.get("limit_mm_per_prompt")),
        openai_version=facts.packages.get("openai"),
        versions=measured.distributions,
        max_model_len=facts.max_model_len,
    )


def image_reference(measured: Measured) -> str:
    """The public image by digest; an image that nobody can pull by its own id."""
    identity = measured.identity
    if not identity.published or identity.manifest_digest is None:
        return identity.config_digest
    return f"{measured.about.repository}@{identity.manifest_digest}"


def hub_weights(weights: Weights, source: str, revision: str | None) -> tuple[HubWeights, ...]:
    """Every hub that has the weights; `source` (`<hub>:…`) is the one whose `revision` was measured."""
    found = ((hub, title, getattr(weights, hub)) for hub, title in HUBS.items())
    return tuple(
        HubWeights(
            hub=hub,
            title=title,
            repository=repository,
            revision=revision if source.startswith(f"{hub}:") else None,
        )
        for hub, title, repository in found
        if repository
    )


def serve_line(command: Sequence[str]) -> str:
    return f"docker exec {CONTAINER} {shlex.join(command)}"


def base_url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def literals(messages: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    return tuple(json.dumps(message, ensure_ascii=False) for message in messages)


def extra_body(chat: Chat) -> dict[str, object]:
    return {"stop_token_ids": chat.stop_token_ids} if chat.stop_token_ids else {}


def body(
    served_name: str, messages: Sequence[Mapping[str, str]], more: Mapping[str, object]
) -> str:
    """Of a chat request, a line for each key, quoted for the shell."""
    chat = {"model": served_name, "messages": messages, "temperature": 0, **more}
    lines = (f"  {json.dumps(key)}: {json.dumps(chat[key], ensure_ascii=False)}" for key in chat)
    return shlex.quote("{\n" + ",\n".join(lines) + "\n}")


def images_per_request(limit: object) -> int | None:
    """From vLLM's `limit_mm_per_prompt`."""
    images = limit.get("image") if isinstance(limit, Mapping) else None
    return images if isinstance(images, int) else None
