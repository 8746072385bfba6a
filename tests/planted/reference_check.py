"""Run inside the runtime image: what the reference of the operator check calls wrong, and what not. Prints JSON."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from flagrelease_serving import operator_reference as reference

aten = torch.ops.aten


def says(operator: Any, arguments: tuple[Any, ...], result: Any, **options: Any) -> str:
    """Of a library that gives this result; "" where it is right."""
    if why := reference.undefined(operator, arguments, options):
        return f"not compared: {why}"
    wide, more = reference.widened(operator, (arguments, options))
    expected = reference.results(operator(*wide, **more))
    got = reference.results(result)
    return reference.compare(operator, arguments, options, got, expected).says


def right(operator: Any, *arguments: Any, **options: Any) -> str:
    """Of torch's own kernel."""
    return says(operator, arguments, operator(*arguments, **options), **options)


def cases() -> Mapping[str, tuple[str, str]]:
    """Each with what is said of it, and "right", "wrong" or "not compared"."""
    torch.manual_seed(0)
    x, half = torch.randn(6, 6), torch.randn(40, 576).bfloat16()
    ties = torch.tensor([[0, 1, 2, 3, 3, 2, 1, 0]])
    values, order = ties.sort(dim=1)
    big = half.clone()
    big[0] *= 100
    weights = torch.randn(576, 64).bfloat16()
    product = aten.mm.default(big, weights)
    blank = product.clone()
    blank[16:] = 0
    spots = (torch.tensor([1, 1]),)
    return {
        "argmax out of range": (says(aten.argmax.default, (x,), torch.tensor(100000)), "wrong"),
        "argmax": (right(aten.argmax.default, x, 1), "right"),
        "another of two maxima": (
            says(aten.argmax.default, (ties[0],), torch.tensor(4)),
            "right",
        ),
        "topk at -1": (
            says(aten.topk.default, (x[0], 1), (x[0].max().view(1), torch.tensor([-1]))),
            "wrong",
        ),
        "positions as values": (says(aten.sort.default, (ties, 1), (order, order)), "wrong"),
        "a position twice": (
            says(aten.sort.default, (ties, 1), (values, order[:, [0, 0, 2, 3, 4, 5, 6, 6]])),
            "wrong",
        ),
        "ties in another order": (
            says(aten.sort.default, (ties, 1), (values, order[:, [1, 0, 2, 3, 4, 5, 6, 7]])),
            "right",
        ),
        "ties of a stable sort in another order": (
            says(
                aten.sort.stable,
                (ties,),
                (values, order[:, [1, 0, 2, 3, 4, 5, 6, 7]]),
                stable=True,
                dim=1,
            ),
            "wrong",
        ),
        "sort along the first": (right(aten.sort.stable, x, stable=False, dim=0), "right"),
        "equal": (says(aten.equal.default, (x, x), False), "wrong"),
        "cumsum in int32": (
            says(aten.cumsum.default, (ties, 1), ties.cumsum(1).int()),
            "wrong",
        ),
        "rows of zeros below a large one": (says(aten.mm.default, (big, weights), blank), "wrong"),
        "a large row": (says(aten.mm.default, (big, weights), product), "right"),
        "gelu": (
            says(aten.gelu.default, (x * 3,), aten.gelu.default((x * 3).double()).float()),
            "right",
        ),
        "gelu of torch": (right(aten.gelu.default, x * 3), "right"),
        "gelu for silu": (says(aten.silu.default, (x,), aten.gelu.default(x)), "wrong"),
        "lerp": (right(aten.lerp.Scalar, x, x + 1e-6, 0.3), "right"),
        "a half float and a number": (
            right(aten.eq.Scalar, torch.tensor([0.1]).bfloat16(), 0.1),
            "right",
        ),
        "a remainder": (right(aten.remainder.Scalar, half, 0.7), "right"),
        "an element written twice": (
            right(aten.index_put.default, torch.zeros(4), spots, torch.tensor([1.0, 2.0])),
            "not compared",
        ),
        "added twice": (
            right(aten.index_put.default, torch.zeros(4), spots, torch.tensor([1.0, 2.0]), True),
            "right",
        ),
        "ties of cummax": (right(aten.cummax.default, ties, 1), "right"),
        "infinity as an integer": (
            right(aten._to_copy.default, torch.tensor([float("inf")]), dtype=torch.int32),
            "not compared",
        ),
        "silu in half": (right(aten.silu.default, half), "right"),
        "softmax in half": (right(aten._softmax.default, half, -1, False), "right"),
        "embedding": (right(aten.embedding.default, half, torch.tensor([0, 3])), "right"),
        "nothing": (right(aten.mm.default, half[:0], weights), "right"),
    }


if __name__ == "__main__":
    print(json.dumps(cases()))
