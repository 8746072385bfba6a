"""The one error of a container engine that answers wrongly, or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import docker.errors
import requests
import urllib3.exceptions

from pipeline.errors import PipelineError, StageRefusedError, WorldError
from pipeline.world.causes import of_machine

START_HINT = "start it with ./bootstrap, or see that your user may use it (docker ps)"

# docker-py passes on what requests and urllib3 raise, and on a raw socket what the socket raises.
BROKEN = (
    docker.errors.DockerException,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
)


@contextmanager
def asking(doing: str, hint: str = START_HINT) -> Iterator[None]:
    """Turns whatever the engine answers wrongly, or not at all, into one WorldError."""
    try:
        yield
    except docker.errors.APIError as error:
        raise WorldError(
            f"the container engine refused: {error.explanation or error}",
            where=doing,
            hint=of_machine(str(error)) or hint,
        ) from error
    except BROKEN as error:
        raise WorldError(
            f"the container engine did not answer: {error}", where=doing, hint=START_HINT
        ) from error


def build_error(said: str, last_lines: Sequence[str], tag: str) -> PipelineError:
    """Of a step that failed: a WorldError where the machine is the cause, such as a full disk."""
    advice = of_machine("\n".join([*last_lines, said]))
    return (WorldError if advice else StageRefusedError)(
        f"a step of the image build failed: {said}",
        where=f"building {tag}",
        details="\n".join(last_lines),
        hint=advice or "the whole log is build.log in the cell's folder under out/",
    )
