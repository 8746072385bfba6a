"""The hubs of a target, ready to be published to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.hub_accounts import Hub as Asked
from pipeline.world.hub import Hub
from pipeline.world.hub_folder import FolderHub
from pipeline.world.hub_huggingface import HuggingFaceHub
from pipeline.world.hub_modelscope import ModelScopeHub


def hubs_of(asked: Sequence[Asked], root: Path) -> tuple[Hub, ...]:
    """In the order of the matrix. Raises UsageError that names every token that the environment lacks."""
    hubs, missing = list[Hub](), list[UsageError]()
    for hub in asked:
        try:
            hubs.append(_hub(hub, root))
        except UsageError as error:
            missing.append(error)
    if missing:
        raise UsageError(
            "tokens of hubs are missing",
            details="\n".join(f"{error.where}: {error.message}" for error in missing),
            hint="\n".join(error.hint for error in missing),
        )
    return tuple(hubs)


def _hub(asked: Asked, root: Path) -> Hub:
    if asked.huggingface is not None:
        return HuggingFaceHub(asked.huggingface)
    if asked.modelscope is not None:
        return ModelScopeHub(asked.modelscope)
    return FolderHub(root / str(asked.folder), asked.text)
