"""What no later run removes, or cannot be found yet: a process that is interrupted waits until none of it is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_open = set[object]()
_changing = threading.Lock()


@contextmanager
def untidy() -> Iterator[None]:
    """Around what leaves something behind, and around its removal."""
    mine = object()
    with _changing:
        _open.add(mine)
    try:
        yield
    finally:
        with _changing:
            _open.discard(mine)


def is_untidy() -> bool:
    """Whether any thread of this process is there now."""
    return bool(_open)
