"""vLLM's CPU worker: an operator library, and bfloat16 products at float32 speed on processors without AVX-512.

oneDNN has no bfloat16 kernel for them, so vLLM falls back to torch's own, which is several times slower
than the float32 one. Here each product is computed in float32 and rounded to bfloat16, which is what a
bfloat16 kernel with float32 accumulation computes. Weights take twice their memory more.
"""

from collections.abc import Callable

import torch
from vllm import _custom_ops as ops
from vllm.logger import init_logger
from vllm.v1.worker.cpu_worker import CPUWorker

from flagrelease_serving.operators import SwitchesOperators, load_operators

logger = init_logger("vllm.flagrelease")
PRIMITIVES_KEPT = 32  # as vLLM itself asks oneDNN to keep

Linear = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class WideLinearWorker(SwitchesOperators, CPUWorker):
    """Named as `worker_cls`. Leaves the products alone where oneDNN has the kernel."""

    def init_device(self) -> None:
        super().init_device()
        self.operators = load_operators(rank=self.rank)

    def load_model(self, *, load_dummy_weights: bool = False) -> None:
        super().load_model(load_dummy_weights=load_dummy_weights)
        if torch.cpu.get_capabilities().get("avx512_f"):
            logger.info("bfloat16 products: the processor's own kernels")
            return
        layers = [
            layer
            for layer in self.model_runner.model.modules()
            if hasattr(layer, "cpu_linear")
            and layer.weight.dim() == 2
            and layer.weight.dtype == torch.bfloat16
        ]
        for layer in layers:
            layer.cpu_linear = wide_linear(layer.weight)
        logger.info("bfloat16 products: computed in float32 in %d layers", len(layers))


def wide_linear(weight: torch.Tensor) -> Linear:
    """`x @ weight.T + bias` in float32, rounded to the dtype of `x`; weight is (out, in)."""
    handler = ops.create_onednn_mm(weight.float().t(), PRIMITIVES_KEPT)

    def linear(x: torch.Tensor, _: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        wide_bias = None if bias is None else bias.float()
        return ops.onednn_mm(handler, x.float(), wide_bias).to(x.dtype)

    return linear
