"""The OpenAI API of a served stack, as smoke calls it: a bad answer is an answer too."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests


@dataclass(frozen=True, kw_only=True)
class Answer:
    """`status` 0 means that no answer came; `error` then says why."""

    status: int
    body: Mapping[str, Any]
    error: str

    @property
    def text(self) -> str:
        """The completion alone, without the prompt."""
        choices = self.body.get("choices") or [{}]
        message = choices[0].get("message") or {}
        return str(message.get("content") or choices[0].get("text") or "")

    @property
    def completion_tokens(self) -> int:
        return int((self.body.get("usage") or {}).get("completion_tokens") or 0)


def direct_session() -> requests.Session:
    """Straight to the server: a proxy of this machine does not reach its loopback address."""
    session = requests.Session()
    session.trust_env = False
    return session


class OpenAI:
    def __init__(self, base_url: str, model: str, *, timeout_s: float = 300) -> None:
        self.base_url = base_url
        self.model = model
        self.timeout_s = timeout_s

    def models(self) -> Answer:
        return self._ask("GET", "/v1/models", None)

    def chat(
        self,
        prompt: str | Sequence[Mapping[str, object]],
        *,
        model: str | None = None,
        **options: object,
    ) -> Answer:
        """`prompt`: text, or the parts of a message: https://platform.openai.com/docs/api-reference/chat/create."""
        body = {
            "model": model or self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            **options,
        }
        return self._ask("POST", "/v1/chat/completions", body)

    def complete(self, prompt: str | list[int], **options: object) -> Answer:
        body = {"model": self.model, "prompt": prompt, "temperature": 0, **options}
        return self._ask("POST", "/v1/completions", body)

    def stream(self, prompt: str, *, max_tokens: int) -> tuple[str, int, str]:
        """Text put together from the stream, number of chunks that held some, and what went wrong."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": max_tokens,
            "stream": True,
        }
        pieces: list[str] = []
        try:
            with (
                direct_session() as session,
                session.post(
                    f"{self.base_url}/v1/chat/completions",
                    json=body,
                    stream=True,
                    timeout=self.timeout_s,
                ) as response,
            ):
                if response.status_code != 200:
                    return "", 0, f"HTTP {response.status_code}: {response.text[:300]}"
                # As bytes: text would also be split at line ends that JSON may hold.
                for line in response.iter_lines():
                    data = line.decode().removeprefix("data:").strip()
                    if data and data != "[DONE]":
                        event = json.loads(data)
                        if "error" in event:
                            return "".join(pieces), len(pieces), _error_of(response, event)
                        delta = (event.get("choices") or [{}])[0].get("delta") or {}
                        pieces += [delta["content"]] if delta.get("content") else []
        except (requests.RequestException, ValueError) as error:
            return "".join(pieces), len(pieces), str(error)
        return "".join(pieces), len(pieces), ""

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        try:
            with direct_session() as session:
                response = session.request(
                    method, self.base_url + path, json=body, timeout=self.timeout_s
                )
        except requests.RequestException as error:
            return Answer(status=0, body={}, error=str(error))
        try:
            parsed = response.json()
        except ValueError:
            parsed = {}
        found = parsed if isinstance(parsed, dict) else {}
        wrong = "" if response.status_code == 200 else _error_of(response, found)
        return Answer(status=response.status_code, body=found, error=wrong)


def _error_of(response: requests.Response, body: Mapping[str, Any]) -> str:
    message = body.get("error") or body.get("message") or response.text
    if isinstance(message, Mapping):
        message = message.get("message", message)
    return f"HTTP {response.status_code}: {str(message)[:600]}"
