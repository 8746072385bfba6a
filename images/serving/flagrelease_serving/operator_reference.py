"""One call of an operator, computed again on the CPU, and how far the library's answer is from it.

Whoever calls this keeps the library's kernels out of the way meanwhile (`operator_check.py`).

The rule: the reference is computed in float32, or in float64 where a float64 tensor goes in; of an operator that is not
torch's own in the dtypes that it is called with. A floating result is right
where it is within `ROUNDINGS` roundings of its own dtype, taken of the element itself and, for operators that are not
elementwise, of the largest element too (a sum's error is relative to its terms). NaN and infinities must stand where
the reference has them. Integers and booleans must be equal; where an operator returns positions of values (argmax,
sort, topk), the values that stand there are compared: ties may be broken either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

HALVES = (torch.bfloat16, torch.float16)
WIDENED = ("aten", "prims")  # others may take handles of memory that is packed for one dtype
ROUNDINGS = {torch.bfloat16: 2, torch.float16: 2, torch.float32: 16, torch.float64: 16}
ELEMENTWISE_SHARE = (
    1e-3  # of the largest element; near a zero of sin an absolute error is all there is
)
POSITIONS = {
    "argmax",
    "argmin",
    "argsort",
    "kthvalue",
    "max",
    "median",
    "min",
    "mode",
    "sort",
    "topk",
}
SHOWN_ELEMENTS = 256  # a tensor up to here is written with its values


@dataclass(frozen=True)
class Difference:
    """Of one call. Errors are taken over finite elements; `excess` is error over what is allowed."""

    absolute: float = 0.0
    relative: float = 0.0
    excess: float = 0.0
    says: str = ""  # what is wrong; "" where nothing is

    @property
    def is_wrong(self) -> bool:
        return bool(self.says)


def tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def copied(tree: Any) -> Any:
    """The same arguments on the CPU; one that is named twice stays one."""
    seen: dict[int, torch.Tensor] = {}

    def copy(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) not in seen:
            host = leaf.detach().cpu()
            seen[id(leaf)] = host.clone() if host.data_ptr() == leaf.data_ptr() else host
        return seen[id(leaf)]

    return tree_map(copy, tree)


def widened(operator: Any, tree: Any) -> Any:
    """For the reference: half floats as float32, everything on the CPU. Others than torch's own keep their dtypes."""
    wide: dict[int, torch.Tensor] = {}
    narrow = HALVES if operator.namespace in WIDENED else ()

    def widen(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            if leaf.dtype not in narrow:
                # The copy that is shown later must outlive an operator that works in place.
                return wide.setdefault(id(leaf), leaf.clone())
            return wide.setdefault(id(leaf), leaf.float())
        if isinstance(leaf, torch.dtype) and leaf in narrow:
            return torch.float32
        return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

    return tree_map(widen, tree)


def changed(
    operator: Any, arguments: Sequence[Any], options: Mapping[str, Any]
) -> list[torch.Tensor]:
    """The arguments that the operator writes to, by its schema."""
    found = []
    for at, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = arguments[at] if at < len(arguments) else options.get(argument.name)
            found += tensors(value)
    return found


def compare(
    operator: Any,
    inputs: Sequence[Any],
    got: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
) -> Difference:
    """The worst of all results; `inputs` are the positional arguments on the CPU, `got` lies there too."""
    if len(got) != len(expected):
        return Difference(
            says=f"{len(got)} results where the reference has {len(expected)}", excess=1e9
        )
    elementwise = torch.Tag.pointwise in operator.tags
    is_positions = operator._schema.name.partition("::")[2].rstrip("_") in POSITIONS
    worst = Difference()
    for one, other in zip(got, expected, strict=True):
        if one.shape != other.shape:
            shapes = f"shape {tuple(one.shape)} where the reference has {tuple(other.shape)}"
            return Difference(says=shapes, excess=1e9)
        if is_positions and not one.is_floating_point() and inputs and not torch.equal(one, other):
            one, other = _values_at(operator, inputs, one), _values_at(operator, inputs, other)
        found = _difference(one, other, elementwise)
        worst = max(worst, found, key=lambda each: (each.is_wrong, each.excess))
    return worst


def _values_at(operator: Any, inputs: Sequence[Any], positions: torch.Tensor) -> torch.Tensor:
    names = [argument.name for argument in operator._schema.arguments]
    at = names.index("dim") if "dim" in names else len(inputs)
    dim = (
        inputs[at]
        if at < len(inputs)
        else (-1 if "dim" in names and "argm" not in str(operator) else None)
    )
    values = inputs[0]
    if dim is None:
        return values.flatten()[positions]
    if positions.dim() < values.dim():
        return values.gather(dim, positions.unsqueeze(dim)).squeeze(dim)
    return values.gather(dim, positions)


def _difference(got: torch.Tensor, expected: torch.Tensor, elementwise: bool) -> Difference:
    if got.is_complex():
        got, expected = torch.view_as_real(got), torch.view_as_real(expected)
    if not got.numel():
        return Difference()
    if not (got.is_floating_point() and expected.is_floating_point()):
        wrong = int((got.double() != expected.double()).sum())
        error = float((got.double() - expected.double()).abs().max())
        says = f"{wrong} of {got.numel()} elements differ" if wrong else ""
        return Difference(absolute=error, excess=float(wrong), says=says)
    rounded = expected.to(got.dtype)  # a half float overflows where float32 does not
    one, other = got.double(), rounded.double()
    finite = torch.isfinite(one) & torch.isfinite(other)
    same = finite | (one == other) | (one.isnan() & other.isnan())
    if wrong := int((~same).sum()):
        says = f"NaN or infinity in one alone: {wrong} of {got.numel()} elements"
        return Difference(excess=1e9, says=says)
    if not bool(finite.any()):
        return Difference()
    one, exact = one[finite], expected.double()[finite]
    error, size = (one - exact).abs(), exact.abs()
    largest = size.max() * (ELEMENTWISE_SHARE if elementwise else 1.0)
    info = torch.finfo(got.dtype)
    allowed = ROUNDINGS.get(got.dtype, 2) * info.eps * (size + largest) + info.tiny
    excess = error / allowed
    worst = float(excess.max())
    beyond = int((excess > 1).sum())
    at = int(excess.argmax())
    return Difference(
        absolute=float(error.max()),
        relative=float((error / size.clamp_min(info.tiny)).max()),
        excess=worst,
        says=f"{beyond} of {got.numel()} elements, worst {float(one[at])!r} for {float(exact[at])!r}"
        if beyond
        else "",
    )


def written(
    operator: Any, arguments: Sequence[Any], options: Mapping[str, Any], device: str
) -> str:
    """The call as Python. Tensors of more than SHOWN_ELEMENTS elements appear without their values."""
    words = [_python(value, device) for value in arguments]
    words += [f"{name}={_python(value, device)}" for name, value in options.items()]
    name = operator._schema.name.replace("::", ".")
    return f"torch.ops.{name}.{operator._overloadname}({', '.join(words)})"


def shapes(arguments: Sequence[Any], options: Mapping[str, Any]) -> Iterator[str]:
    """What makes two calls alike: shapes, dtypes and strides, and every scalar."""
    for leaf in tree_flatten((list(arguments), dict(options)))[0]:
        if isinstance(leaf, torch.Tensor):
            yield f"{leaf.dtype}{tuple(leaf.shape)}{leaf.stride()}"
        else:
            yield "a number" if isinstance(leaf, float) else repr(leaf)[:60]


def _python(value: Any, device: str) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_python(each, device) for each in value)}]"
    if isinstance(value, torch.device):
        return f"'{device}'"
    if not isinstance(value, torch.Tensor):
        return repr(value)
    if value.numel() <= SHOWN_ELEMENTS:
        listed = repr(value.tolist()).replace("nan", "float('nan')").replace("inf", "float('inf')")
        text = f"torch.tensor({listed}, dtype={value.dtype}, device='{device}')"
        if value.is_contiguous():
            return text
        return (
            f"{text}.as_strided({tuple(value.shape)}, {value.stride()})"
            if 0 in value.stride()
            else text
        )
    shape, stride = tuple(value.shape), value.stride()
    return f"torch.empty_strided({shape}, {stride}, dtype={value.dtype}, device='{device}')"
