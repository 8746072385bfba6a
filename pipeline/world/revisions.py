"""Asks registries and hubs what a moving name means today. Only `nox -s lock` does."""

from __future__ import annotations

from pipeline.errors import WorldError
from pipeline.model import Weights
from pipeline.world.oci import parse_reference
from pipeline.world.registry import Registry


class PublicHubs:
    """The public registries and hubs; every method raises WorldError where they cannot be reached."""

    def image_digest(self, reference: str) -> str:
        parsed = parse_reference(reference)
        digest = Registry(parsed.registry).head(parsed.repository, parsed.version)
        if digest is None:
            raise WorldError("the registry has no such image", where=reference)
        return digest

    def weights_revision(self, weights: Weights) -> str:
        if weights.modelscope is not None:
            return _modelscope_revision(weights.modelscope)
        return _huggingface_revision(str(weights.huggingface))


def _modelscope_revision(model: str) -> str:
    from modelscope.hub.api import HubApi

    try:
        return str(HubApi().get_model(model)["Revision"])
    except Exception as error:  # the client raises types of many libraries
        raise WorldError(
            f"ModelScope does not answer ({type(error).__name__})", where=model
        ) from error


def _huggingface_revision(model: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().model_info(model, timeout=20).sha)
    except Exception as error:  # the client raises types of many libraries
        raise WorldError(
            f"Hugging Face does not answer ({type(error).__name__})", where=model
        ) from error
