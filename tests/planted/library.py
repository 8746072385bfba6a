"""An operator library whose faults can be switched on: what a gate that is worth its name must catch.

The hook of images/serving/ loads it as `planted.library`, from this folder mounted into the image's Python path. It
replaces what the eager CPU path of vLLM really calls; without a fault each replacement passes through to what it
replaced. PLANTED_FAULTS, or the file FAULTS_FILE inside the container, names the faults that are on, separated by
commas; both are read when operators are switched. A fault counts the results that it spoiled.
"""

import functools
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from vllm import ir

Kernel = Callable[..., Any]  # what it replaced, then the operator's own arguments

BACKEND = "CPU"
FAULTS_FILE = Path("/tmp/planted-faults")
DISPATCHED = {
    "attention": "_C::cpu_attention_with_kv_cache",
    "linear": "_C::onednn_mm",
    "rotary_embedding": "_C::rotary_embedding",
    "silu": "aten::silu",
}
# vLLM's own table of providers; these are Python functions and never reach the dispatcher.
PROVIDED = {"fused_add_rms_norm": ir.ops.fused_add_rms_norm, "rms_norm": ir.ops.rms_norm}
PROVIDER = "planted"

ROPE_BASE = 10_000.0  # SmolLM2 was trained with 100,000
DROPPED_OF_K = 32
NAN_EVERY = 500  # calls; every forward pass makes one a layer
LARGEST_GOOD_BATCH = 4

_counts: Counter[str] = Counter()
_kernels: dict[str, Kernel] = {}  # of the operators that are on
_libraries: list[Any] = []
_priorities: dict[str, list[str]] = {}  # of vLLM's providers, before ours
_spoiled_layer: list[int] = []


def passing_through(replaced: Kernel, *arguments: Any) -> Any:
    return replaced(*arguments)


def gelu_for_silu(_: Kernel, x: torch.Tensor) -> Any:
    _counts["gelu_for_silu"] += 1
    return torch.nn.functional.gelu(x)


def nan_now_and_then(replaced: Kernel, x: torch.Tensor) -> Any:
    y = replaced(x)
    if _counts["silu"] % NAN_EVERY == 0:
        _counts["nan_now_and_then"] += 1
        y[y.shape[0] // 2, 0] = math.nan
    return y


def rope_base_off(
    replaced: Kernel,
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    head_size: int,
    cos_sin: torch.Tensor,
    *rest: Any,
) -> Any:
    _counts["rope_base_off"] += 1
    return replaced(
        positions, query, key, head_size, _other_angles(*cos_sin.shape, cos_sin.dtype), *rest
    )


def attention_scale_off(replaced: Kernel, *arguments: Any) -> Any:
    _counts["attention_scale_off"] += 1
    return replaced(*arguments[:6], arguments[6] * 0.95, *arguments[7:])


def garbage_above_batch_4(replaced: Kernel, *arguments: Any) -> Any:
    replaced(*arguments)
    output, seq_lens = arguments[3], arguments[5]
    if seq_lens.shape[0] > LARGEST_GOOD_BATCH:
        _counts["garbage_above_batch_4"] += 1
        output.copy_(output.flip(0))  # every token gets the attention of another one


def last_of_k_dropped(
    replaced: Kernel, output: torch.Tensor, x: torch.Tensor, bias: Any, handler: torch.Tensor
) -> Any:
    """In the first layer that is seen narrowing: a down projection."""
    if x.shape[-1] > output.shape[-1] and not _spoiled_layer:
        _spoiled_layer.append(int(handler))
    if int(handler) in _spoiled_layer:
        _counts["last_of_k_dropped"] += 1
        x = x.clone()
        x[..., -DROPPED_OF_K:] = 0
    return replaced(output, x, bias, handler)


def rms_norm_eps_off(replaced: Kernel, *arguments: Any) -> Any:
    """In both operators eps is the first number, behind the tensors."""
    _counts["rms_norm_eps_off"] += 1
    at = next(i for i, argument in enumerate(arguments) if isinstance(argument, float))
    return replaced(*arguments[:at], 1e-3, *arguments[at + 1 :])


FAULTS: dict[str, dict[str, Kernel]] = {
    "attention_scale_off": {"attention": attention_scale_off},
    "garbage_above_batch_4": {"attention": garbage_above_batch_4},
    "gelu_for_silu": {"silu": gelu_for_silu},
    "last_of_k_dropped": {"linear": last_of_k_dropped},
    "nan_now_and_then": {"silu": nan_now_and_then},
    "rms_norm_eps_off": {"rms_norm": rms_norm_eps_off, "fused_add_rms_norm": rms_norm_eps_off},
    "rope_base_off": {"rotary_embedding": rope_base_off},
}


def available() -> Mapping[str, tuple[str, ...]]:
    return {**{name: (at,) for name, at in DISPATCHED.items()}, **dict.fromkeys(PROVIDED, ())}


def enable(include: Collection[str], exclude: Collection[str]) -> None:
    _take_away()
    kernels = dict.fromkeys((*DISPATCHED, *PROVIDED), passing_through)
    for fault in _faults():
        kernels |= FAULTS[fault]
    for name in include or kernels.keys() - set(exclude):
        if name in DISPATCHED:
            _replace_in_dispatcher(name, kernels[name])
        else:
            _provide(name)
        _kernels[name] = kernels[name]


def registered() -> Collection[str]:
    return _kernels.keys()


def calls() -> Mapping[str, int]:
    """Calls of each operator, and results spoiled by each fault."""
    return _counts


def _faults() -> list[str]:
    named = os.environ.get("PLANTED_FAULTS", "")
    if FAULTS_FILE.exists():
        named = FAULTS_FILE.read_text("utf-8")
    return [fault for fault in named.split(",") if fault]


def _take_away() -> None:
    for library in _libraries:
        library._destroy()
    for name, priority in _priorities.items():
        PROVIDED[name].set_default(priority)
    _libraries.clear()
    _kernels.clear()


def _replace_in_dispatcher(name: str, kernel: Kernel) -> None:
    namespace, _, operator = DISPATCHED[name].partition("::")
    replaced = torch.library.get_kernel(DISPATCHED[name], BACKEND)

    def counted(keys: Any, *arguments: Any) -> Any:
        _counts[name] += 1
        return kernel(functools.partial(replaced.call_boxed, keys), *arguments)

    library = torch.library.Library(namespace, "IMPL")
    library.impl(operator, counted, BACKEND, with_keyset=True)
    _libraries.append(library)


def _provide(name: str) -> None:
    operator = PROVIDED[name]
    if PROVIDER not in operator.impls:
        native = operator.impls["native"].impl_fn

        @functools.wraps(native)  # vLLM compares signatures
        def counted(*arguments: Any) -> Any:
            _counts[name] += 1
            return _kernels[name](native, *arguments)

        operator.register_impl(PROVIDER)(counted)
        _priorities[name] = operator.get_priority()
    operator.set_default([PROVIDER, *_priorities[name]])


@functools.cache
def _other_angles(rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
    """vLLM's table of cosines and sines, for another base."""
    exponents = torch.arange(0, columns, 2, dtype=torch.float32) / columns
    angles = torch.outer(torch.arange(rows, dtype=torch.float32), ROPE_BASE**-exponents)
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype)
