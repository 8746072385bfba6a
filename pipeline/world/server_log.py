"""What a server's log says of its end: the errors in it, and what to do about those that are known. Pure."""

from __future__ import annotations

import re

LAST_LINES = 20
_ERROR = re.compile(r"\b[\w.]*(Error|Exception|InvalidCxxCompiler)\b: .*")

# Of vLLM 0.24.0, torch and the kernel; the first that is found counts.
_KNOWN = (
    (r"No space left on device", "a disk is full, or /dev/shm (shm_size): df -h shows which"),
    (
        r"Free memory on device .* is less than desired GPU memory utilization",
        "something else holds memory of the device: the chip's own tool (nvidia-smi) names it; end that, or lower "
        "gpu_memory_utilization of the cell",
    ),
    (
        r"OutOfMemoryError|out of memory",
        "the model needs more memory than the device has free: end what else uses it, or serve with more cards, a "
        "shorter max_model_len or fewer max_num_seqs",
    ),
    (
        r"No available memory for the cache blocks|larger than the available KV cache memory",
        "no memory is left for the cache: raise gpu_memory_utilization, or serve with more cards or a shorter "
        "max_model_len",
    ),
    (
        r"driver version is insufficient|forward compatibility was attempted|no kernel image is available",
        "the driver is too old for what the image was built with, or the chip is another one",
    ),
    (
        r"No CUDA GPUs are available|CUDA-capable device\(s\) is/are busy",
        "the container sees no free device: run the chip's own tool on this machine, and look what holds the device",
    ),
)


def errors_in(log: str) -> str:
    """The first distinct errors of a log, where a cause stands; its last lines when it names none."""
    lines = log.splitlines()
    named = (_ERROR.search(line) for line in lines if "WARNING" not in line)
    errors = list(dict.fromkeys(hit[0][:300] for hit in named if hit))
    return "\n".join(errors[:LAST_LINES] or lines[-LAST_LINES:])


def advice_on(log: str) -> str:
    """What to do about the fault of a log, "" for one that is not known."""
    return next((advice for fault, advice in _KNOWN if re.search(fault, log)), "")
