"""vLLM's GPU worker with an operator library, or no worker at all."""

from vllm.v1.worker.gpu_worker import Worker

from flagrelease_serving.operators import SwitchesOperators, load_operators


class FlagGemsWorker(SwitchesOperators, Worker):
    """Named as `worker_cls`. Loads the library after the device is set: importing FlagGems needs it."""

    def init_device(self) -> None:
        super().init_device()
        self.operators = load_operators(rank=self.rank, required=True)
