"""One call of an operator, computed again on the CPU, and how far the library's answer is from it.

Whoever calls this keeps the library's kernels out of the way meanwhile (`operator_check.py`).

The rule: half floats are computed in float32, float32 of elementwise operators in float64; all else, comparisons and
remainders, and operators that are not torch's own, in the dtypes of the call. A floating result is right where it is
within `ROUNDINGS` roundings of its own dtype, taken of the element itself and, for operators that are not elementwise,
of the largest element of its row too (a sum's error is relative to its terms). NaN and infinities must stand where the
reference has them. Integers and booleans must be equal; where an operator returns positions of values (argmax, sort,
topk), the values that stand there are compared: ties may be broken either way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

HALVES = (torch.bfloat16, torch.float16)
WIDENED = ("aten", "prims")  # others may take handles of memory that is packed for one dtype
# Of two numbers that the dtype of the call has rounded; a number of Python's is rounded to it first.
AS_CALLED = ("eq", "ne", "lt", "le", "gt", "ge", "remainder", "fmod", "floor_divide")
ROUNDINGS = {torch.bfloat16: 2, torch.float16: 2, torch.float32: 16, torch.float64: 16}
# Near a zero of sin an absolute error is all there is: of the largest element, or of what went in.
ELEMENTWISE_SHARE = 1e-3
OTHER_ROWS_SHARE = 1e-2  # of the largest element of all rows
ARGUMENTS_SORTED = ("argsort", "sort", "topk")  # return every position once at most
POSITIONS = (
    "argmax",
    "argmin",
    *ARGUMENTS_SORTED,
    "cummax",
    "cummin",
    "kthvalue",
    "max",
    "median",
    "min",
    "mode",
)
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
    """For the reference: everything on the CPU, in the dtype that it is computed in."""
    wide: dict[int, torch.Tensor] = {}
    dtypes = _widening(operator)

    def widen(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            if leaf.dtype not in dtypes:
                # The copy that is shown later must outlive an operator that works in place.
                return wide.setdefault(id(leaf), leaf.clone())
            return wide.setdefault(id(leaf), leaf.to(dtypes[leaf.dtype]))
        if isinstance(leaf, torch.dtype):
            return dtypes.get(leaf, leaf)
        return torch.device("cpu") if isinstance(leaf, torch.device) else leaf

    return tree_map(widen, tree)


def _widening(operator: Any) -> Mapping[torch.dtype, torch.dtype]:
    if operator.namespace not in WIDENED or _name(operator) in AS_CALLED:
        return {}
    halves = dict.fromkeys(HALVES, torch.float32)
    return halves | ({torch.float32: torch.float64} if _is_elementwise(operator) else {})


def _is_elementwise(operator: Any) -> bool:
    return torch.Tag.pointwise in operator.tags


def _name(operator: Any) -> str:
    return str(operator._schema.name.partition("::")[2]).strip("_")


def results(tree: Any) -> list[torch.Tensor]:
    """Tensors, and numbers as such."""
    leaves = (
        leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, (torch.Tensor, bool, int, float))
    )
    return [leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf) for leaf in leaves]


def undefined(operator: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> str:
    """Why two right libraries may give different results; "" where they may not."""
    given, name = _bound(operator, inputs, options), _name(operator)
    if name in ("index_put", "index_put_impl") and not given.get("accumulate"):
        indices = [one for one in given["indices"] if one is not None]
        if all(one.dtype != torch.bool for one in indices):
            rows = torch.stack([one.flatten() for one in torch.broadcast_tensors(*indices)])
            if rows.shape[1] != rows.unique(dim=1).shape[1]:
                return "an element is written twice"
    if name == "scatter" and "reduce" not in given and isinstance(given.get("src"), torch.Tensor):
        along = given["index"].sort(dim=given["dim"]).values
        if along.numel() and bool((along.diff(dim=given["dim"]) == 0).any()):
            return "an element is written twice"
    if name in ("to_copy", "copy"):
        return _unrepresentable(given)
    return ""


def _unrepresentable(given: Mapping[str, Any]) -> str:
    """Of a conversion to integers: what C++ leaves undefined."""
    source = given.get("src", given["self"])
    target = given["self"].dtype if "src" in given else given.get("dtype")
    if target is None or target.is_floating_point or target.is_complex or target == torch.bool:
        return ""
    if not isinstance(source, torch.Tensor) or not source.is_floating_point():
        return ""
    limits, whole = torch.iinfo(target), source.double()
    fits = bool(((whole >= limits.min) & (whole <= limits.max)).all())
    return "" if fits else "a number that the integer does not hold"


def _bound(operator: Any, inputs: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments by name, defaults too."""
    bound = {}
    for at, argument in enumerate(operator._schema.arguments):
        if at < len(inputs):
            bound[argument.name] = inputs[at]
        elif argument.name in options:
            bound[argument.name] = options[argument.name]
        elif argument.has_default_value():
            bound[argument.name] = argument.default_value
    return bound


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
    options: Mapping[str, Any],
    got: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
) -> Difference:
    """The worst of all results; `inputs` are the positional arguments on the CPU, `got` lies there too."""
    if len(got) != len(expected):
        return _wrong(f"{len(got)} results where the reference has {len(expected)}")
    worst = Difference()
    for at, (one, other) in enumerate(zip(got, expected, strict=True)):
        if one.shape != other.shape:
            return _wrong(f"shape {tuple(one.shape)} where the reference has {tuple(other.shape)}")
        if one.is_floating_point() != other.is_floating_point() or (
            one.dtype != other.dtype and not one.is_floating_point()
        ):
            return _wrong(f"{one.dtype} where the reference has {other.dtype}")
        if _has_positions(operator, at, len(got)) and not torch.equal(one, other):
            found = _positions_differ(_bound(operator, inputs, options), operator, one, other)
        else:
            found = _difference(one, other, operator, inputs)
        worst = max(worst, found, key=lambda each: (each.is_wrong, each.excess))
    return worst


def _wrong(says: str) -> Difference:
    return Difference(says=says, excess=1e9)


def _has_positions(operator: Any, at: int, count: int) -> bool:
    """Whether this result is positions: of values that come with them, or alone."""
    name = _name(operator)
    return name in POSITIONS and (at == 1 or (count == 1 and name.startswith("arg")))


def _positions_differ(
    given: Mapping[str, Any], operator: Any, one: torch.Tensor, other: torch.Tensor
) -> Difference:
    """Where ties may be broken either way."""
    values, dim, name = given["self"], given.get("dim"), _name(operator)
    size = values.numel() if dim is None else values.shape[dim] if values.dim() else 1
    if one.numel() and not (int(one.min()) >= 0 and int(one.max()) < size):
        return _wrong(f"a position outside of 0 to {size - 1}")
    if given.get("stable"):
        return _difference(one, other, operator, ())
    if name in ARGUMENTS_SORTED and one.dim():
        in_order = one.sort(dim=dim).values
        if bool((in_order.diff(dim=dim) == 0).any()):
            return _wrong("a position twice")
    return _difference(_at(values, one, dim), _at(values, other, dim), operator, ())


def _at(values: torch.Tensor, positions: torch.Tensor, dim: int | None) -> torch.Tensor:
    if dim is None or not values.dim():
        return values.flatten()[positions]
    if positions.dim() < values.dim():
        return values.gather(dim, positions.unsqueeze(dim)).squeeze(dim)
    return values.gather(dim, positions)


def _difference(
    got: torch.Tensor, expected: torch.Tensor, operator: Any, inputs: Sequence[Any]
) -> Difference:
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
        return _wrong(f"NaN or infinity in one alone: {wrong} of {got.numel()} elements")
    if not bool(finite.any()):
        return Difference()
    exact = expected.double()
    size = torch.where(finite, exact.abs(), 0.0)
    info = torch.finfo(got.dtype)
    roundings = ROUNDINGS.get(got.dtype, 2) * info.eps
    allowed = (roundings * (size + _scale(size, operator, inputs, got.dtype)) + info.tiny)[finite]
    one, exact, size = one[finite], exact[finite], size[finite]
    error = (one - exact).abs()
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


def _scale(
    size: torch.Tensor, operator: Any, inputs: Sequence[Any], dtype: torch.dtype
) -> torch.Tensor:
    """What an error may be relative to, beside the element itself."""
    largest = size.max()
    if not _is_elementwise(operator):
        rows = size.amax(dim=-1, keepdim=True) if size.dim() > 1 else largest
        return torch.maximum(rows, largest * OTHER_ROWS_SHARE)
    if dtype in HALVES:
        return largest * ELEMENTWISE_SHARE  # computed in float32: nothing cancels that a half shows
    went_in = [
        tensor.double().abs() for tensor in tensors(list(inputs)) if tensor.is_floating_point()
    ]
    known = [
        float(one[torch.isfinite(one)].max()) for one in went_in if bool(torch.isfinite(one).any())
    ]
    one_rounding = max(known, default=0.0) / ROUNDINGS[torch.float32]
    return torch.maximum(largest * ELEMENTWISE_SHARE, torch.tensor(one_rounding))


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
