"""Run inside the runtime image: the operator check with torch itself, without a server. Prints its file as JSON.

A library whose `silu`, `pow` and copies are wrong; the copies must neither hide the others nor themselves.
"""

import json
import sys
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from flagrelease_serving.operators import Operators

BACKEND = "CPU"
ENTRIES = {
    "silu": ("aten::silu",),
    "pow_scalar": ("aten::pow.Scalar",),
    "copy_": ("aten::copy_",),
    "to_copy": ("aten::_to_copy",),
    "mm": ("aten::mm", "aten::mm.out"),
    "cos": ("aten::cos",),
    "sort": ("aten::sort",),
    "argmax": ("aten::argmax",),
    "index_put_": ("aten::index_put_",),
    "fill_": ("aten::fill_.Scalar",),
    "uniform_": ("aten::uniform_",),
    "arange": ("aten::arange.start_step",),
    "zeros": ("aten::zeros",),
    "sin": ("aten::sin",),
    "outside": (),
}
_libraries: list[torch.library.Library] = []


def available() -> Mapping[str, tuple[str, ...]]:
    return ENTRIES


def registered() -> Collection[str]:
    return ENTRIES


def calls() -> Mapping[str, int]:
    return {}


def off_by(share: float, result: Any) -> Any:
    return result * (1 + share)


def enable(_include: Collection[str], _exclude: Collection[str]) -> None:
    for one in _libraries:
        one._destroy()
    _libraries.clear()
    for entry in (entry for entries in ENTRIES.values() for entry in entries):
        _replace(entry)


def _replace(entry: str) -> None:
    replaced = torch.library.get_kernel(entry, BACKEND)

    def kernel(keys: Any, *arguments: Any, **options: Any) -> Any:
        if entry == "aten::_to_copy" and not isinstance(arguments[0], torch.Tensor):
            return torch.tensor(
                arguments[0], dtype=options.get("dtype")
            )  # a number that was wrapped
        result = replaced.call_boxed(keys, *arguments, **options)
        if entry == "aten::silu":
            return torch.nn.functional.gelu(arguments[0])
        if entry == "aten::pow.Scalar":
            return off_by(0.1, result)
        if entry in ("aten::copy_", "aten::_to_copy") and result.is_floating_point():
            return result.mul_(
                2
            )  # so that a check that copied by it would compare wrong with wrong
        return result

    library = torch.library.Library("aten", "IMPL")
    library.impl(entry.partition("::")[2], kernel, BACKEND, with_keyset=True, allow_override=True)
    _libraries.append(library)


def load() -> torch.Tensor:
    """As a rotary cache is made."""
    with torch.device("cpu"):
        exponents = torch.arange(0, 8, 2, dtype=torch.float32) / 8
        angles = torch.outer(torch.arange(4, dtype=torch.float32), 10_000.0**-exponents)
    pow(10_000.0, exponents)
    return angles.cos().to(torch.bfloat16)


def serve() -> None:
    x = torch.linspace(-3, 3, 64).reshape(8, 8)
    torch.mm(x, x)
    torch.mm(x.bfloat16(), x.bfloat16())
    torch.nn.functional.silu(x)
    torch.zeros(3).copy_(x[0, :3])
    ties = torch.tensor([[1.0, 3.0, 3.0, 2.0]])
    ties.sort(descending=True)
    ties.argmax(dim=-1)
    ties.argmax()
    torch.zeros(5).index_put_((torch.tensor([1, 2]),), torch.ones(2))
    torch.zeros(5).fill_(2.0)
    torch.empty(5).uniform_()
    torch.sin(torch.tensor([float("nan"), float("inf"), 0.5, 3.14159265]))
    torch.zeros(70_000_000, dtype=torch.int8).fill_(1)


def main(name: str) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())
    operators = Operators(sys.modules[name], "checked", rank=0, check=folder)
    operators.switch([], [])
    operators.switch([], [])  # a check outlives a switch
    with operators.during("loading"):
        load()
    with operators.during("serving"), torch.inference_mode():
        serve()
    (file,) = folder.glob("*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


if __name__ == "__main__":
    print(json.dumps(main(__name__)))
