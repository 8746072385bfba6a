"""FlagGems as an operator library (see `operators.py`). Imported once the device is set: `import flag_gems` needs it.

FlagGems' own note of each operator's first run still goes to FLAGGEMS_ENABLE_OPLIST_PATH, where vllm-plugin-FL puts it.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import flag_gems
import torch

BACKEND = flag_gems.runtime.device.dispatch_key
OPERATOR_LOG = "/tmp/flaggems_enable_oplist.txt"  # noqa: S108 -- where the plugin puts it
# On Hopper, mul and fill are imported as a top-level package and log beside FlagGems' own logger.
LOGGERS = ("flag_gems", "hopper")

_library: torch.library.Library | None = None


class _Calls(logging.Handler):
    """FlagGems logs a line at the start of every operator; counted here by function name."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("GEMS"):
            self.counts[record.funcName] += 1


_calls = _Calls()


def available() -> Mapping[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for key, function, *conditions in flag_gems._FULL_CONFIG:
        if key not in flag_gems.aten_patch_list and all(holds() for holds in conditions):
            name = function.__name__
            found[name] = (*found.get(name, ()), f"aten::{key}")
    return found


def enable(include: Collection[str], exclude: Collection[str]) -> None:
    global _library
    if _library is not None:
        _library._destroy()
    _library = torch.library.Library("aten", "IMPL")
    path = Path(f"{os.environ.get('FLAGGEMS_ENABLE_OPLIST_PATH', OPERATOR_LOG)}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    recording = {"record": True, "once": True, "path": str(path)}
    if include:
        flag_gems.only_enable(lib=_library, include=list(include), **recording)
    else:
        flag_gems.enable(lib=_library, unused=list(exclude), **recording)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(_calls)


def registered() -> Collection[str]:
    return set(flag_gems.all_registered_ops())


def calls() -> Mapping[str, int]:
    return _calls.counts
