"""What each stage reads, as the named parts of its key. One function a stage; pure.

CA bundles, proxies, index addresses and the name of the release's folder are in none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.canonical import canonical, fingerprint, sha256_bytes
from pipeline.cell import Cell
from pipeline.keys import UNKNOWN, Parts, flatten
from pipeline.layers import base_parts, model_parts, runtime_parts
from pipeline.lock import Lock, weights_source, wheel_name
from pipeline.record import About, ImageIdentity, Record, StageName, Stages
from pipeline.stage_sources import SOURCES

CONVERTER = "/opt/flagrelease/convert_gguf.py"
CONVERTER_FILE = "images/serving/convert_gguf.py"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Everything that keys are made of and that is not the cell itself."""

    lock: Lock
    files: Mapping[str, bytes]  # rendered files, requirement locks and images/serving/, by path
    edited: tuple[str, ...]  # rendered files that differ on disk
    templates: Mapping[str, str]  # templates/<name> → SHA-256
    sources: Mapping[str, str]  # pipeline/<path> → SHA-256
    builder: str | None  # None: no engine to ask
    node: str  # class of the node that measures
    registry: str
    hubs: tuple[str, ...]
    about: About
    blocks: Callable[[Record], str | None]  # hash of its card's commands; None: facts are missing


def parts_of(stage: StageName, cell: Cell, inputs: Inputs, done: Stages, release: str) -> Parts:
    """The parts of a stage, given the stages before it. A value that is yet to be made is UNKNOWN."""
    parts: Mapping[StageName, Callable[[], Parts]] = {
        "render": lambda: _render(cell, inputs),
        "build": lambda: _build(cell, inputs),
        "weights": lambda: _weights(cell, inputs),
        "smoke": lambda: _smoke(cell, inputs, done),
        "accuracy": lambda: _accuracy(cell, inputs, done),
        "performance": lambda: _performance(cell, inputs, done),
        "rehearse": lambda: _rehearse(cell, inputs, done, release),
        "card": lambda: card_parts(inputs.about, done, release, inputs.templates, inputs.sources),
        "attest": lambda: _attest(inputs, done),
        "promote": lambda: {"image": _image(done), "target": inputs.registry, "tag": release},
        "publish": lambda: publish_parts(done, inputs.hubs),
    }
    return parts[stage]()


def _render(cell: Cell, inputs: Inputs) -> Parts:
    chip, model = f"chips.{cell.chip_id}", f"models.{cell.model_id}"
    names = {"family", "python", "system_packages", "aliases", "remove", "strip"}
    names |= {"serve", "env", "stacks", "released", "title"}
    parts = flatten(cell.chip.model_dump(include=names), chip)
    parts |= flatten(cell.model.model_dump(include={"title", "port", "serve"}), model)
    parts |= flatten(
        cell.override.model_dump(include={"serve", "env", "operators"}),
        f"cells.overrides.{cell.id}",
    )
    shown = ("card", "page")  # what people read touches no image
    parts |= {
        name: sha
        for name, sha in inputs.templates.items()
        if not any(word in name for word in shown)
    }
    return parts


def _build(cell: Cell, inputs: Inputs) -> Parts:
    """Everything the three images are made of: the key of the stage, known before anything is built."""
    return {
        **base_parts(cell, inputs.lock),
        **runtime_parts(cell, inputs.files),
        **model_parts(cell, inputs.files),
        "builder": inputs.builder or UNKNOWN,
    }


def _weights(cell: Cell, inputs: Inputs) -> Parts:
    weights, pin = cell.model.weights, inputs.lock.weights.get(cell.weights_id)
    parts = {
        "weights source": weights_source(weights),
        "weights revision": (pin.revision if pin else None) or "(not locked)",
    }
    if weights.convert:
        parts[CONVERTER_FILE] = sha256_bytes(inputs.files.get(CONVERTER_FILE, b""))
    return parts


def _served(cell: Cell, inputs: Inputs, done: Stages) -> dict[str, str]:
    """What every measurement of a served image depends on."""
    weights = done.weights.result if done.weights else None
    return {
        "image": _image(done),
        "weights": weights.sha256 if weights else UNKNOWN,
        "node": inputs.node,
        **flatten(cell.run.model_dump(), f"chips.{cell.chip_id}.run"),
    }


def _smoke(cell: Cell, inputs: Inputs, done: Stages) -> Parts:
    stack = f"chips.{cell.chip_id}.stacks.{cell.chip.released}"
    switch = cell.chip.stacks[cell.chip.released].operators
    return {
        **_served(cell, inputs, done),
        **_hashes("smoke", inputs.sources),
        **flatten(cell.model.smoke.model_dump(), f"models.{cell.model_id}.smoke"),
        f"models.{cell.model_id}.modality": cell.model.modality,
        **({f"{stack}.operators.unchecked": switch.unchecked} if switch else {}),
    }


def _accuracy(cell: Cell, inputs: Inputs, done: Stages) -> Parts:
    policy = flatten(cell.gate.model_dump(), "gate")
    return {**trace_parts(cell, inputs, done), **_hashes("accuracy", inputs.sources), **policy}


def trace_parts(cell: Cell, inputs: Inputs, done: Stages) -> Parts:
    """What decides a trace: its texts are those of the items."""
    return {**row_parts(cell, inputs, done), **_hashes("traces", inputs.sources)}


def row_parts(cell: Cell, inputs: Inputs, done: Stages) -> Parts:
    """What decides an answer. Neither policy nor judge: another of these judges the same rows again."""
    parts = {**_served(cell, inputs, done), **_hashes("rows", inputs.sources), **_roles(cell)}
    for name, benchmark in cell.benchmarks.items():
        parts |= flatten(benchmark.model_dump(), f"benchmarks.{name}")
        if builtin := benchmark.evaluator.builtin:
            wheel = wheel_name(builtin.source)
            parts[wheel] = inputs.lock.wheels.get(wheel, "(not locked)")
    return parts


def _performance(cell: Cell, inputs: Inputs, done: Stages) -> Parts:
    return {
        **_served(cell, inputs, done),
        **_hashes("performance", inputs.sources),
        **_roles(cell),
        **flatten(cell.load.model_dump(), f"models.{cell.model_id}.load"),
    }


def _rehearse(cell: Cell, inputs: Inputs, done: Stages, release: str) -> Parts:
    """The blocks name the image and hold every command; a card whose prose alone changes is not rehearsed again."""
    built, weights = done.build.result if done.build else None, done.weights
    record = Record(
        cell=cell.id,
        chip=cell.chip_id,
        model=cell.model_id,
        release=release,
        about=inputs.about,
        image=ImageIdentity.of(built) if built else None,
        stages=done,
    )
    return {
        "blocks": inputs.blocks(record) or UNKNOWN,
        "image": _image(done),
        "weights": weights.result.sha256 if weights and weights.result else UNKNOWN,
        "node": inputs.node,
        **_hashes("rehearse", inputs.sources),
    }


def _attest(inputs: Inputs, done: Stages) -> Parts:
    """The card's key stands for the record: results, release, and what was asked for, with the key that signs."""
    return {
        "card": done.card.key if done.card else UNKNOWN,
        "image": _image(done),
        **_hashes("attest", inputs.sources),
    }


def card_parts(
    about: About,
    done: Stages,
    release: str,
    templates: Mapping[str, str],
    sources: Mapping[str, str],
) -> Parts:
    """Everything a card shows was measured by these stages, so their keys stand for it."""
    measured = (
        *(done.build, done.weights, done.smoke),
        *(done.accuracy, done.performance, done.rehearse),
    )
    results = [stage.result.model_dump(mode="json") for stage in measured if stage and stage.result]
    has_accuracy = done.accuracy is not None and done.accuracy.result is not None
    may_lack = 1 if about.waiver and not has_accuracy else 0
    whole = len(results) + may_lack == len(measured)
    return {
        "measurements": sha256_bytes(canonical(results)) if whole else UNKNOWN,
        "what was asked for": fingerprint(about.model_dump(mode="json")),
        "release": release,
        **{name: sha for name, sha in templates.items() if "card" in name},
        **_hashes("card", sources),
    }


def publish_parts(done: Stages, hubs: Sequence[str]) -> Parts:
    return {"cards": _cards(done), "hubs": ", ".join(hubs)}


def _cards(done: Stages) -> str:
    files = done.card.result.files if done.card and done.card.result else None
    return UNKNOWN if files is None else sha256_bytes(canonical([f.sha256 for f in files]))


def _image(done: Stages) -> str:
    return done.build.result.model.config_digest if done.build and done.build.result else UNKNOWN


def _hashes(stage: str, sources: Mapping[str, str]) -> dict[str, str]:
    return {path: sources[path] for path in (f"pipeline/{name}" for name in SOURCES[stage])}


def _roles(cell: Cell) -> dict[str, str]:
    chip = f"chips.{cell.chip_id}"
    return {f"{chip}.reference": cell.chip.reference, f"{chip}.released": cell.chip.released}
