"""Traces on disk, so that a killed run does not ask again and one reference serves many candidates.

A numpy archive: arrays of every pass end to end, and a JSON head. It holds no token of a prompt,
only hashes; what it holds of the answers are ids. It stays under out/, which git ignores.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.canonical import canonical, write_whole
from pipeline.logit_policy import LogitProfile
from pipeline.traces import Lists, PassName, ReferenceTrace, Trace

FORMAT = 1
Arrays = Mapping[str, npt.NDArray[Any]]
ARRAYS = ("tokens", "logprobs", "text_logprobs", "generated")


def write_trace(path: Path, trace: Trace, *, key: str) -> None:
    _write(path, key, _head(trace), trace)


def write_reference(path: Path, reference: ReferenceTrace, *, key: str) -> None:
    more = {
        "profile": reference.profile.model_dump(mode="json"),
        "top_k": reference.top_k,
        "answers": [list(answer) for answer in reference.answers],
    }
    _write(path, key, {**_head(reference.trace), "reference": more}, reference.trace)


def read_trace(path: Path, *, key: str) -> Trace | None:
    """What was written under this key; None where there is nothing, nothing whole, or another key."""
    found = _read(path, key)
    return None if found is None else _trace(*found)


def read_reference(path: Path, *, key: str) -> ReferenceTrace | None:
    found = _read(path, key)
    if found is None or "reference" not in found[0]:
        return None
    head, arrays = found
    return ReferenceTrace(
        profile=LogitProfile.model_validate(head["reference"]["profile"]),
        top_k=head["reference"]["top_k"],
        trace=_trace(head, arrays),
        answers=tuple(tuple(answer) for answer in head["reference"]["answers"]),
    )


def _head(trace: Trace) -> dict[str, Any]:
    return {
        "stack": trace.stack,
        "texts": list(trace.texts),
        "seconds": dict(trace.seconds),
        "passes": {
            name: [
                {"rows": len(one.tokens), "generated": len(one.generated), "error": one.error}
                for one in answers
            ]
            for name, answers in trace.passes.items()
        },
    }


def _write(path: Path, key: str, head: Mapping[str, Any], trace: Trace) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{name}.{array}": np.concatenate([getattr(one, array) for one in answers])
        for name, answers in trace.passes.items()
        if answers
        for array in ARRAYS
    }
    data = io.BytesIO()
    first = np.frombuffer(canonical({"format": FORMAT, "key": key, **head}), np.uint8)
    np.savez_compressed(data, head=first, **arrays)  # type: ignore[arg-type]  # names are ours
    write_whole(path, data.getvalue())


def _read(path: Path, key: str) -> tuple[dict[str, Any], Arrays] | None:
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        head: dict[str, Any] = json.loads(arrays.pop("head").tobytes())
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None  # not written by us, or not whole
    return (head, arrays) if (head.get("format"), head.get("key")) == (FORMAT, key) else None


def _trace(head: Mapping[str, Any], arrays: Arrays) -> Trace:
    passes: dict[PassName, tuple[Lists, ...]] = {
        name: _pass(rows, {array: arrays[f"{name}.{array}"] for array in ARRAYS}) if rows else ()
        for name, rows in head["passes"].items()
    }
    return Trace(
        stack=head["stack"], texts=tuple(head["texts"]), passes=passes, seconds=head["seconds"]
    )


def _pass(rows: Sequence[Mapping[str, Any]], arrays: Arrays) -> tuple[Lists, ...]:
    ends = np.cumsum([row["rows"] for row in rows])[:-1]
    generated_ends = np.cumsum([row["generated"] for row in rows])[:-1]
    split = {
        name: np.split(array, generated_ends if name == "generated" else ends)
        for name, array in arrays.items()
    }
    return tuple(
        Lists(
            tokens=split["tokens"][index],
            logprobs=split["logprobs"][index],
            text_logprobs=split["text_logprobs"][index],
            generated=split["generated"][index],
            error=row["error"],
        )
        for index, row in enumerate(rows)
    )
