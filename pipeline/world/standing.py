"""What a release made public, as it was when all of it was compared, and the few questions that tell whether it is so.

Of the registry: all tags beside the release index in one list, the digests of that index and of the newest withdrawal,
and the digest of each cell's tag. Of hubs in the network: one question for each card. A run with nothing to do loads
this, so the clients of hubs, which are slow to import, are not used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import requests

from pipeline.workers import per_thread
from pipeline.world.oci import WITHDRAWN
from pipeline.world.registry import Registry
from pipeline.world.registry_login import Authorization

HubKind = Literal["huggingface", "modelscope"]
TOKENS: Mapping[HubKind, str] = {  # variables of the environment
    "huggingface": "HF_TOKEN",
    "modelscope": "MODELSCOPE_API_TOKEN",
}
AT_ONCE = 8
TIMEOUT_S = (2.0, 10.0)  # to connect, to answer


@dataclass(frozen=True, kw_only=True)
class PublicTag:
    """A tag and the digest that it names; `cell` is empty for the release index."""

    cell: str
    repository: str
    tag: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class HubCard:
    """A repository of a hub in the network that holds a card."""

    kind: HubKind
    endpoint: str
    repository: str
    head: str  # the commit that holds it, where the hub tells one
    files: Mapping[str, str]  # path → SHA-256, as published


@dataclass(frozen=True, kw_only=True)
class Beside:
    """All tags beside the release indexes, and what the newest withdrawal is."""

    tags: tuple[str, ...]
    withdrawn: str | None

    @classmethod
    def read(cls, registry: Registry, repository: str) -> Beside:
        tags = registry.tags(repository)
        named = registry.head(repository, WITHDRAWN) if WITHDRAWN in tags else None
        return cls(tags=tags, withdrawn=named)


@dataclass(frozen=True, kw_only=True)
class Standing:
    host: str
    index_repository: str
    beside: Beside
    tags: tuple[PublicTag, ...]  # of the release index and of each cell
    cards: tuple[HubCard, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Standing:
        """From what `dataclasses.asdict` made of one, and JSON of that."""
        beside = Beside(**{**content["beside"], "tags": tuple(content["beside"]["tags"])})
        tags = tuple(PublicTag(**tag) for tag in content["tags"])
        cards = tuple(HubCard(**card) for card in content["cards"])
        return cls(**{**content, "beside": beside, "tags": tags, "cards": cards})

    def is_still_so(self) -> bool:
        """Raises PipelineError where the registry cannot be asked; a hub that cannot is taken for changed."""
        registry, session = Registry(self.host, at_once=AT_ONCE), per_thread(requests.Session)
        questions: list[Callable[[], bool]] = [
            lambda: Beside.read(registry, self.index_repository) == self.beside,
            *(partial(_holds_card, card, session) for card in self.cards),
            *(partial(_names, registry, tag) for tag in self.tags),
        ]
        return all(registry.each(lambda question: question(), questions))


def _names(registry: Registry, tag: PublicTag) -> bool:
    return registry.head(tag.repository, tag.tag) == tag.digest


def _holds_card(card: HubCard, session: Callable[[], requests.Session]) -> bool:
    token = os.environ.get(TOKENS[card.kind], "").strip()
    if not token:
        return False  # who plans anew is told which one is missing
    try:
        # Older doors of ModelScope read the cookie, newer ones the header.
        cookies = {"m_session_id": token} if card.kind == "modelscope" else {}
        return _IS_HELD[card.kind](card, partial(_get, session(), token, cookies))
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return False  # who plans anew is told what the hub answered


def _get(
    session: requests.Session, token: str, cookies: dict[str, str], url: str, **params: str
) -> Any:
    """As the clients of both hubs ask; no redirect takes the token elsewhere."""
    answer = session.get(
        url,
        params=params,
        auth=Authorization(f"Bearer {token}"),
        cookies=cookies,
        timeout=TIMEOUT_S,
        allow_redirects=False,
    )
    if answer.status_code != 200:
        raise ValueError(answer.status_code)
    return answer.json()


def _is_on_huggingface(card: HubCard, get: Callable[..., Any]) -> bool:
    """Its newest commit. Source: huggingface_hub 2.4.0, HfApi.model_info."""
    told = get(f"{card.endpoint}/api/models/{card.repository}")["sha"]
    return bool(card.head) and told == card.head


def _is_on_modelscope(card: HubCard, get: Callable[..., Any]) -> bool:
    """The hash of each file. Source: modelscope-hub 0.5.1, LegacyApi.list_repo_files."""
    url = f"{card.endpoint}/api/v1/models/{card.repository}/repo/files"
    listed = get(url, Revision="master", Recursive="True")["Data"]["Files"]
    told = {file["Path"]: file.get("Sha256") for file in listed}
    return all(told.get(path) == sha256 for path, sha256 in card.files.items())


_IS_HELD: Mapping[HubKind, Callable[[HubCard, Callable[..., Any]], bool]] = {
    "huggingface": _is_on_huggingface,
    "modelscope": _is_on_modelscope,
}
