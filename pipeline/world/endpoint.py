"""A served stack, and requests of items to it: repeated while the connection breaks, their replies checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import requests
import tenacity
from pydantic import BaseModel, ValidationError

from pipeline.errors import WorldError
from pipeline.world.openai_reply import Tokens

CONNECTION_ATTEMPTS = 3
HEALTH_TIMEOUT_S = 10
BROKEN_CONNECTION = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)

Shape = TypeVar("Shape", bound=BaseModel)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A served stack: `base_url` without /v1, and the name the model is served under."""

    base_url: str
    model: str
    timeout_s: float = 300
    retry_wait_s: float = 2


class ItemError(Exception):
    """One item could not be answered; its row keeps the text."""


class Door:
    """Requests of one item to one endpoint."""

    def __init__(self, endpoint: Endpoint, session: requests.Session) -> None:
        self.endpoint = endpoint
        self.session = session

    def tokens(self, text: str) -> list[int]:
        return self.post("/tokenize", {"prompt": text, "add_special_tokens": True}, Tokens).tokens

    def post(self, path: str, body: dict[str, Any], shape: type[Shape]) -> Shape:
        """The reply. Raises ItemError for this item, WorldError when nobody listens any more."""
        response = self._sent(path, {"model": self.endpoint.model, **body})
        if response.status_code != requests.codes.ok:
            raise ItemError(f"POST {path} answered HTTP {response.status_code}")
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ItemError(
                f"POST {path} answered in another shape: {first['type']} at {place}"
            ) from None

    def _sent(self, path: str, body: dict[str, Any]) -> requests.Response:
        # Requests are safe to repeat; an answered request, good or bad, is an answer.
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BROKEN_CONNECTION),
            stop=tenacity.stop_after_attempt(CONNECTION_ATTEMPTS),
            wait=tenacity.wait_fixed(self.endpoint.retry_wait_s),
            reraise=True,
        )
        url = self.endpoint.base_url + path
        try:
            return attempts(self.session.post, url, json=body, timeout=self.endpoint.timeout_s)
        except requests.RequestException as error:
            self._check_alive(error)
            raise ItemError(f"POST {path} got no answer: {type(error).__name__}") from error

    def _check_alive(self, cause: requests.RequestException) -> None:
        try:
            self.session.get(f"{self.endpoint.base_url}/health", timeout=HEALTH_TIMEOUT_S)
        except requests.RequestException as error:
            raise WorldError(
                "the server stopped answering while items were asked",
                where=self.endpoint.base_url,
                details=f"{type(cause).__name__}: {cause}",
                hint="look at the end of the server's log; out of memory is the usual reason",
            ) from error
