"""vLLM's GPU worker with FlagGems' operators, or no worker at all.

Reads the variables that vllm-plugin-FL reads, so that either can serve the same configuration:
VLLM_FL_FLAGOS_WHITELIST and VLLM_FL_FLAGOS_BLACKLIST name FlagGems functions, separated by commas;
FLAGGEMS_ENABLE_OPLIST_PATH is where FlagGems notes each operator when it first runs.
"""

import os
from pathlib import Path

from vllm.logger import init_logger
from vllm.v1.worker.gpu_worker import Worker

logger = init_logger("vllm.flagrelease")
OPERATOR_LOG = "/tmp/flaggems_enable_oplist.txt"  # noqa: S108 -- where the plugin puts it


class FlagGemsError(RuntimeError):
    """FlagGems is not in the state that the variables ask for; serving would measure something else."""


class FlagGemsWorker(Worker):
    """Named as `worker_cls`. Registers after the device is set: importing flag_gems needs it."""

    def init_device(self) -> None:
        super().init_device()
        enable_flaggems(rank=self.rank)


def enable_flaggems(*, rank: int) -> None:
    """Register FlagGems' operators in this process. Raises FlagGemsError when not exactly those asked for are on."""
    include, exclude = listed("VLLM_FL_FLAGOS_WHITELIST"), listed("VLLM_FL_FLAGOS_BLACKLIST")
    if include and exclude:
        raise FlagGemsError("VLLM_FL_FLAGOS_WHITELIST and VLLM_FL_FLAGOS_BLACKLIST are both set")

    import flag_gems

    path = Path(f"{os.environ.get('FLAGGEMS_ENABLE_OPLIST_PATH', OPERATOR_LOG)}.{rank}")
    path.parent.mkdir(parents=True, exist_ok=True)
    recording = {"record": True, "once": True, "path": str(path)}
    if include:
        flag_gems.only_enable(include=include, **recording)
    else:
        flag_gems.enable(unused=exclude, **recording)
    check_registered(set(flag_gems.all_registered_ops()), include, exclude)


def check_registered(registered: set[str], include: list[str], exclude: list[str]) -> None:
    missing = sorted(set(include) - registered)
    if not registered or missing:
        raise FlagGemsError(
            f"FlagGems registered {len(registered)} operators, without {missing or 'any'}"
        )
    if still := sorted(set(exclude) & registered):
        raise FlagGemsError(f"FlagGems registered operators that were excluded: {', '.join(still)}")
    logger.info("FlagGems: %d operators registered, %d excluded", len(registered), len(exclude))


def listed(variable: str) -> list[str]:
    return [name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()]
