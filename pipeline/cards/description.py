"""What a registry shows beside an image: the beginning of its card, and where the whole card is. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def repository_description(card: bytes, locations: Sequence[str]) -> str:
    """Markdown: the card from its title to its first chapter, without the metadata for hubs."""
    _, _, text = card.decode().partition("---\n")[2].partition("\n---\n")
    beginning = text.partition("\n## ")[0].strip()
    public = [f"<{place}>" for place in locations if place.startswith("https://")]
    links = (
        [f"The whole card, with every command and result: {', '.join(public)}"] if public else []
    )
    return "\n\n".join([beginning, *links])
