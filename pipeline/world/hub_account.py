"""What both model hubs have in common: an organisation, a token from the environment, and how their faults are told."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from pipeline.errors import UsageError, WorldError
from pipeline.hub_accounts import HubAccount
from pipeline.results import Publication
from pipeline.world.hub import BusyHubError
from pipeline.world.standing import HubCard, HubKind

# Answers after which the same question may be answered otherwise: too early, in conflict, too many, broken.
PASSING = (408, 409, 412, 425, 429)
# Addresses to upload to are signed in their query.
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


@dataclass(frozen=True, kw_only=True)
class Account:
    """An account with its token, which no text shows."""

    settings: HubAccount
    title: str  # of the hub
    variable: str  # of the environment, that holds the token
    token: str = field(repr=False)

    def repository(self, name: str) -> str:
        return f"{self.settings.organisation}/{name}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a client's exception says of the hub's answer."""

    status: int | None  # None: there was no answer
    is_passing: bool
    retry_after_s: float = 0


def account(settings: HubAccount, *, title: str, variable: str) -> Account:
    token = os.environ.get(variable, "").strip()
    if not token:
        raise UsageError(
            f"{title} needs a token to publish for {settings.organisation}",
            where=f"environment variable {variable}",
            hint=f"make a token that may write for {settings.organisation}, and set {variable}",
        )
    return Account(settings=settings, title=title, variable=variable, token=token)


class AccountHub:
    """What a hub of either client says of itself, and how it asks: every fault of the client is one WorldError."""

    def __init__(
        self,
        account: Account,
        kind: HubKind,
        read: Callable[[BaseException], Answer | None],
        *,
        pages: str = "",  # of repositories, below the endpoint
    ) -> None:
        self._account = account
        self._kind = kind
        self._read = read
        self._pages = pages

    @property
    def name(self) -> str:
        return f"{self._kind}:{self._account.settings.organisation}"

    @property
    def is_private(self) -> bool:
        return self._account.settings.visibility == "private"

    @property
    def takes_weights(self) -> bool:
        return self._account.settings.weights

    def location(self, name: str) -> str:
        endpoint = self._account.settings.endpoint
        return f"{endpoint}/{self._pages}{self._account.repository(name)}"

    def card(self, name: str, published: Publication, head: str) -> HubCard:
        """What it holds of a cell, to be asked for without a client. `head`: the commit at which it was compared."""
        return HubCard(
            kind=self._kind,
            endpoint=self._account.settings.endpoint,
            repository=self._account.repository(name),
            head=head,
            files={file.path: file.sha256 for file in published.files},
        )

    def _asking(self, doing: str, name: str) -> AbstractContextManager[None]:
        return asking(self._account, doing, name, self._read)


@contextmanager
def asking(
    account: Account,
    doing: str,
    name: str,
    read: Callable[[BaseException], Answer | None],
) -> Iterator[None]:
    """Turns what a client raises into one WorldError; its cause is dropped, for it may quote the token.

    `read` says what an exception of the client knows of the hub's answer, None if nothing: then its cause is asked.
    """
    try:
        yield
    except Exception as error:
        known = ((cause, found) for cause in _causes(error) if (found := read(cause)))
        cause, answer = next(known, (error, None))
        if answer is None:
            raise
        raise _fault(account, doing, name, answer, (error, cause)) from None


def _fault(
    account: Account,
    doing: str,
    name: str,
    answer: Answer,
    told: Iterable[BaseException],
) -> WorldError:
    did = f"answered HTTP {answer.status}" if answer.status else "gave no answer"
    message = f"{doing}: {account.title} {did}"
    texts = {
        "where": f"{account.settings.endpoint}/{account.repository(name)}",
        "details": "\n".join(dict.fromkeys(_clean(str(one), account.token) for one in told)),
        "hint": _hint(account, answer),
    }
    if answer.is_passing:
        return BusyHubError(message, retry_after_s=answer.retry_after_s, **texts)
    return WorldError(message, **texts)


def quiet(logger: str) -> None:
    """The clients log what they also raise, with addresses that are signed; we say it once, without them."""
    logging.getLogger(logger).setLevel(logging.CRITICAL + 1)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _clean(text: str, token: str) -> str:
    return _QUERY.sub(r"\1?***", text.replace(token, "***")).strip()


def _hint(account: Account, answer: Answer) -> str:
    match answer.status:
        case 401:
            return f"the token in {account.variable} is wrong or has ended; make a new one"
        case 403:
            return (
                f"the token in {account.variable} may not write for"
                f" {account.settings.organisation}; ask its owners for the right to"
            )
    if answer.is_passing or answer.status is None:
        return "run it again later: what was uploaded already is not sent again"
    return "mend what the hub names, then run it again"
