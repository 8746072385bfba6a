"""Run inside the runtime image: torch itself under the switch, without a server. Prints what was seen as JSON.

Every few operators on or off, over and over; after each switch the dispatcher and the results must be those of that set
alone. Then a search for the planted culprit, probe by probe in one process.
"""

import json
import os
import random
import time
from typing import Any

import torch
import vllm._C  # registers the kernels that the library replaces
from flagrelease_serving.operators import Operators
from planted import crowd

from pipeline.gate.search import find_culprits

assert vllm._C
SWITCHES = 40
os.environ["PLANTED_CASE"] = "one"


def results() -> dict[str, torch.Tensor]:
    """Of a few replaced operators, on fixed inputs."""
    x = torch.linspace(-3, 3, 64)
    return {
        "silu": torch.nn.functional.silu(x),
        "sinc": torch.sinc(x),
        "atan2": torch.atan2(x, x + 1),
        "special_i0e": torch.special.i0e(x),
        "linalg_det": torch.linalg.det(x.reshape(8, 8)),
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def main() -> dict[str, Any]:
    before = results()
    operators = Operators(crowd, "planted.crowd", rank=0)
    names = sorted(crowd.available())
    kernels = operators._kernels()

    def wrong_with(enabled: frozenset[str]) -> bool:
        operators.switch([], frozenset(names) - enabled, may_be_none=True)
        return not same(results(), before)

    rng, unsound = random.Random(0), []
    started = time.monotonic()
    for _ in range(SWITCHES):
        enabled = frozenset(rng.sample(names, rng.randrange(len(names) + 1)))
        if wrong_with(enabled) != ("silu" in enabled):
            unsound.append(sorted(enabled))
    seconds = time.monotonic() - started
    wrong_with(frozenset())
    restored = operators._kernels() == kernels and same(results(), before)

    search = find_culprits(names)
    started = time.monotonic()
    try:
        question = next(search)
        while True:
            question = search.send({probe: wrong_with(probe) for probe in question.probes})
    except StopIteration as stop:
        found = stop.value
    return {
        "operators": len(names),
        "switches": SWITCHES,
        "seconds_a_switch": seconds / SWITCHES,
        "unsound": unsound,
        "restored": restored,
        "calls": crowd.calls().get("sinc", 0),
        "failing_sets": [sorted(failing) for failing in found.failing_sets],
        "probes": found.probes,
        "search_seconds": time.monotonic() - started,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
