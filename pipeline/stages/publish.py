"""publish: hand the cards of a promoted image to every hub of the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from pipeline.canonical import sha256_bytes
from pipeline.cards.description import repository_description
from pipeline.errors import StageRefusedError
from pipeline.record import Record
from pipeline.results import FileHash, Publication, PublishResult, WeightsResult
from pipeline.world.harbor import Harbor
from pipeline.world.hub import Hub, HubFile, Terms
from pipeline.world.hub import publish as to_hub
from pipeline.world.registry import Registry

# A hub shows README.md; the other language lies beside it.
HUB_FILES: Mapping[str, str] = {
    "card.en.md": "README.md",
    "card.zh.md": "README_zh.md",
    "differences.svg": "differences.svg",
}
TEXTS = ("card.en.md", "card.zh.md")  # without a picture where no benchmark was judged


def publish(
    record: Record,
    cards: Mapping[str, bytes],
    hubs: Sequence[Hub],
    name: str,
    weights: Mapping[str, HubFile] = MappingProxyType({}),
) -> PublishResult:
    """Publish `cards` (by file name: card.en.md, card.zh.md …) under `name` on every hub.

    `weights` go with them to the hubs that take any; without them, those that are there stay.
    """
    reasons = tuple(_reasons_against(record, cards, hubs))
    if reasons:
        raise StageRefusedError(
            f"publishing the card of release {record.release}: refused",
            where=record.cell,
            details="\n".join(reasons),
            hint=f"run `nox -s release -- {record.chip} {record.model}`, which does both anew",
        )
    files = {HUB_FILES[card]: HubFile.of(data) for card, data in cards.items()}
    return PublishResult(
        publications=tuple(
            to_hub(
                hub,
                name,
                {**(weights if hub.takes_weights else {}), **files},
                _terms(record, hub),
                message=f"{record.cell}, release {record.release}",
            )
            for hub in hubs
        )
    )


def describe(
    registry: Registry,
    repositories: Sequence[str],
    cards: Mapping[str, bytes],
    publications: Sequence[Publication],
    say: Callable[[str], None],
) -> None:
    """The beginning of the card beside its images, where their registry shows such words, as Harbor does."""
    if not isinstance(registry, Harbor):
        return
    places = [done.location for done in publications]
    text = repository_description(cards["card.en.md"], places)
    for repository in repositories:
        changed = registry.describe(repository, text)
        say(f"description of {repository} {'written' if changed else 'is the same already'}")


def weight_files(result: WeightsResult, folder: Path) -> dict[str, HubFile]:
    """The weights as they were hashed, for publishing; a card that lies among them is not ours."""
    return {
        file.path: HubFile(
            content=folder / file.path, sha256=file.sha256, size_bytes=file.size_bytes
        )
        for file in result.files
        if file.path not in HUB_FILES.values()
    }


def _terms(record: Record, hub: Hub) -> Terms:
    """Public only what passed by itself: what a waiver let through stays private, whatever the hub is set to."""
    accuracy = record.stages.accuracy
    passed = accuracy is not None and accuracy.status == "passed"
    return Terms(is_private=hub.is_private or not passed, license=record.about.license.spdx)


def _reasons_against(
    record: Record, cards: Mapping[str, bytes], hubs: Sequence[Hub]
) -> Iterator[str]:
    if not hubs:
        yield "target: it names no hub"
    yield from _promotion_reasons(record)
    yield from _card_reasons(record, cards)


def _promotion_reasons(record: Record) -> Iterator[str]:
    stage = record.stages.promote
    digest = record.image.manifest_digest if record.image else None
    if stage is None or stage.status != "passed" or stage.result is None:
        yield f"promote: {stage.status if stage else 'not_run'}"
    elif digest is None or stage.result.digest != digest:
        yield f"promote: passed for {stage.result.digest}, the image is {digest}"


def _card_reasons(record: Record, cards: Mapping[str, bytes]) -> Iterator[str]:
    stage = record.stages.card
    if stage is None or stage.status != "passed" or stage.result is None:
        yield f"card: {stage.status if stage else 'not_run'}"
        return
    recorded = _by_name(stage.result.files)
    for card in sorted({*TEXTS, *recorded, *cards}):
        expected = recorded.get(card, "none")
        given = sha256_bytes(cards[card]) if card in cards else "none"
        if card not in HUB_FILES:
            yield f"{card}: no hub has a place for it"
        elif expected == "none" or given != expected:
            yield f"{card}: the record has sha256 {expected}, the card given {given}"


def _by_name(files: Sequence[FileHash]) -> Mapping[str, str]:
    return {PurePosixPath(file.path).name: file.sha256 for file in files}
