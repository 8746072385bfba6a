"""The hubs of a target, as matrix.yaml names them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints

from pipeline.matrix_values import Strict

# A token is sent there, so never in the clear to another machine.
HubUrl = Annotated[
    str,
    StringConstraints(pattern=r"^(https://[^/@\s]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)$"),
]
Organisation = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class HubAccount(Strict):
    """An organisation on a model hub. The token that may write there comes from the environment."""

    organisation: Organisation
    endpoint: HubUrl
    visibility: Literal["public", "private"] = "public"  # of the repositories
    weights: bool = False  # whether they hold the weights too


class Hub(Strict):
    """Where cards go: a folder here, ModelScope or Hugging Face; exactly one of them."""

    folder: str | None = None
    modelscope: HubAccount | None = None
    huggingface: HubAccount | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.model_dump(exclude_none=True))

    @property
    def text(self) -> str:
        """Names it and all that is asked of it, in one line."""
        account = self.modelscope or self.huggingface
        if account is None:
            return f"folder:{self.folder}"
        (kind,) = self.kinds
        weights = ", with weights" if account.weights else ""
        return f"{kind}:{account.organisation} at {account.endpoint}, {account.visibility}{weights}"
