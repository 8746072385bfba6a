"""Hundreds of operators, of which few are at fault: what a search for culprits is tried on.

Loaded as `planted.crowd`. Beside the operators that the served model really calls (`library.py`) it has real entries of
torch's dispatcher that serving never calls; each passes through to what it replaced. PLANTED_CASE says what is wrong:

    one       silu is GELU
    two       silu is GELU, and rotary_embedding has another base
    pair      rms_norm doubles its result when fused_add_rms_norm is on too; either alone is right
    crash     silu ends the process
"""

import functools
import os
from collections.abc import Collection, Mapping
from typing import Any

import torch
from planted import library

BACKEND = library.BACKEND
# Never called by a language model; so a replacement costs nothing.
UNCALLED = (
    *("special_", "linalg_", "_linalg_", "upsample_", "_upsample_", "bitwise_", "_fft_", "glu"),
    *("avg_pool", "max_pool", "adaptive_", "_adaptive_", "reflection_", "replication_"),
    *("grid_sampler", "fractional_", "hardtanh", "hardshrink", "softshrink", "_cdist", "huber_"),
    *("binary_cross", "smooth_l1", "mse_loss", "multi_margin", "multilabel", "nll_", "lerp"),
    *("lgamma", "digamma", "polygamma", "igamma", "hypot", "atan2", "nextafter", "erfinv", "gcd"),
    *("lcm", "heaviside", "frexp", "sinc", "cosh", "sinh", "acosh", "asinh", "atanh", "trunc"),
    *("elu", "leaky_relu", "mish", "logit", "native_batch", "native_group", "slow_", "col2im"),
    *("im2col", "channel_shuffle", "kthvalue", "median", "nanmedian", "mode", "renorm", "histc"),
    *("bincount", "cummax", "cummin", "logcumsumexp", "xlogy", "quantize_", "fake_quantize"),
)


def gelu_for_silu(_: library.Kernel, x: torch.Tensor) -> Any:
    return torch.nn.functional.gelu(x)


def end_the_process(*_: Any) -> Any:
    os._exit(9)


def doubled_beside_its_fused_twin(replaced: library.Kernel, *arguments: Any) -> Any:
    result = replaced(*arguments)
    return result * 2 if "fused_add_rms_norm" in library.registered() else result


CASES: dict[str, dict[str, library.Kernel]] = {
    "": {},
    "one": {"silu": gelu_for_silu},
    "two": {"silu": gelu_for_silu, "rotary_embedding": library.rope_base_off},
    "pair": {"rms_norm": doubled_beside_its_fused_twin},
    "crash": {"silu": end_the_process},
}

_libraries: list[Any] = []
_on: set[str] = set()


@functools.cache
def crowd() -> Mapping[str, str]:
    """Operator → its entry: every uncalled one that has a CPU kernel of its own."""
    entries = torch._C._dispatch_get_registrations_for_dispatch_key(BACKEND)
    found = (entry for entry in entries if entry.partition("::")[2].startswith(UNCALLED))
    return {_name(entry): entry for entry in found if entry.startswith("aten::")}


def available() -> Mapping[str, tuple[str, ...]]:
    return {**library.available(), **{name: (entry,) for name, entry in crowd().items()}}


def enable(include: Collection[str], exclude: Collection[str]) -> None:
    for one in _libraries:
        one._destroy()
    _libraries.clear()
    _on.clear()
    wanted = set(include) or available().keys() - set(exclude)
    own = library.available().keys()
    library.FAULTS["case"] = CASES[os.environ.get("PLANTED_CASE", "")]
    os.environ["PLANTED_FAULTS"] = "case"
    # An empty list would mean all of them.
    library.enable([], own - wanted)
    for name in wanted - own:
        _pass_through(name, crowd()[name])
        _on.add(name)


def registered() -> Collection[str]:
    return {*library.registered(), *_on}


def calls() -> Mapping[str, int]:
    found: Mapping[str, int] = library.calls()
    return found


def _pass_through(name: str, entry: str) -> None:
    replaced = torch.library.get_kernel(entry, BACKEND)

    def counted(keys: Any, *arguments: Any, **options: Any) -> Any:
        library._counts[name] += 1
        return replaced.call_boxed(keys, *arguments, **options)

    one = torch.library.Library("aten", "IMPL")
    one.impl(entry.partition("::")[2], counted, BACKEND, with_keyset=True)
    _libraries.append(one)


def _name(entry: str) -> str:
    """aten::special_i0.out → special_i0_out; no two entries share a name."""
    return entry.partition("::")[2].replace(".", "_")
