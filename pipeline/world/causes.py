"""What the output of a program says of its end: the errors in it, and what to do about known ones. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

LAST_LINES = 20
AGAIN = "then run the same command again: it goes on where it was"
_ERROR = re.compile(r"\b[\w.]*(Error|Exception|InvalidCxxCompiler)\b: .*")


@dataclass(frozen=True)
class Cause:
    """A known fault, and what to do about it.

    One of the machine says nothing about the image: another process, a full disk, a device that cannot be had.
    """

    fault: str  # a regular expression
    advice: str
    is_of_machine: bool

    @property
    def hint(self) -> str:
        return f"{self.advice}; {AGAIN}" if self.is_of_machine else self.advice


# Of vLLM 0.24.0 (v1/worker/utils.py, gpu_worker.py, v1/core/kv_cache_utils.py), torch, CUDA and the kernel; the first
# that is found counts.
CAUSES = (
    Cause(
        r"(?i)no space left on device",
        "a disk is full, or /dev/shm (shm_size): df -h shows which; make room",
        is_of_machine=True,
    ),
    Cause(
        r"exit code 137|non-zero code: 137",
        "it was killed, as the kernel does when memory runs out (dmesg and free -g tell); end what else uses it",
        is_of_machine=True,
    ),
    Cause(
        r"Free memory on device .* is less than desired GPU memory utilization",
        "something else holds memory of the device: the chip's own tool (nvidia-smi) names it; end that, or lower "
        "gpu_memory_utilization of the cell",
        is_of_machine=True,
    ),
    Cause(
        r"Error in memory profiling",
        "something else took or gave back memory of the device while this server measured it: let nothing else start "
        "or end there meanwhile",
        is_of_machine=True,
    ),
    Cause(
        r"busy or unavailable|No CUDA GPUs are available|no CUDA-capable device is detected",
        "the container sees no free device: run the chip's own tool on this machine, and look what holds the device",
        is_of_machine=True,
    ),
    Cause(
        r"OutOfMemoryError|out of memory",
        "the model needs more memory than the device has free: end what else uses it, or serve with more cards, a "
        "shorter max_model_len or fewer max_num_seqs",
        is_of_machine=False,
    ),
    Cause(
        r"No available memory for the cache blocks|larger than the available KV cache memory",
        "no memory is left for the cache: raise gpu_memory_utilization, or serve with more cards or a shorter "
        "max_model_len",
        is_of_machine=False,
    ),
    Cause(
        r"driver version is insufficient|forward compatibility was attempted|no kernel image is available",
        "the driver is too old for what the image was built with, or the chip is another one",
        is_of_machine=False,
    ),
)


def errors_in(log: str) -> str:
    """The first distinct errors of a log, where a cause stands; its last lines when it names none."""
    lines = log.splitlines()
    named = (_ERROR.search(line) for line in lines if "WARNING" not in line)
    errors = list(dict.fromkeys(hit[0][:300] for hit in named if hit))
    return "\n".join(errors[:LAST_LINES] or lines[-LAST_LINES:])


def known_cause(log: str) -> Cause | None:
    """None for a fault that is not known."""
    return next((cause for cause in CAUSES if re.search(cause.fault, log)), None)


def of_machine(output: str) -> str:
    """What to do when the machine is why a program failed; "" when nothing says so."""
    cause = known_cause(output)
    return cause.hint if cause and cause.is_of_machine else ""
