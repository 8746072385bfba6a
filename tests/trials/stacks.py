"""The stacks of the planted-fault trial: what is wrong with each, or that nothing is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.projects import ROOT, Changes

Kind = Literal["gross", "subtle", "legitimate"]
REFERENCE = "float32"
LIBRARY = ROOT / "tests/planted/library.py"
MOUNTED = "/opt/flagrelease/planted"  # on the image's Python path


@dataclass(frozen=True, kw_only=True)
class TrialStack:
    """Served with float32 like the reference, unless `serve` says otherwise."""

    name: str
    kind: Kind
    says: str
    fault: str = ""  # of tests/planted/library.py
    planted: bool = True  # whether the library is loaded
    serve: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    exclude: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def block(self) -> dict[str, Any]:
        """The stack as matrix.yaml would hold it."""
        found: dict[str, Any] = {
            "title": {"en": self.name, "zh": self.name},
            "serve": {"dtype": "float32", **self.serve},
            "env": dict(self.env),
        }
        if self.planted:
            found["operators"] = {"library": "planted.library", "exclude": dict(self.exclude)}
        if self.fault:
            found["env"]["PLANTED_FAULTS"] = self.fault
        return found


def faulty(
    kind: Kind,
    fault: str,
    says: str,
    *,
    env: Mapping[str, str] | None = None,
    exclude: Mapping[str, Mapping[str, str]] | None = None,
) -> TrialStack:
    return TrialStack(
        name=fault, kind=kind, says=says, fault=fault, env=env or {}, exclude=exclude or {}
    )


STACKS = (
    faulty("gross", "gelu_for_silu", "GELU where the model has SiLU"),
    faulty("gross", "rope_base_off", "rotary angles of base 10,000 for 100,000"),
    faulty("gross", "nan_now_and_then", "a NaN in every 500th result of SiLU"),
    faulty(
        "gross",
        "garbage_above_batch_4",
        "the attention of other tokens when more than 4 requests run together",
    ),
    faulty("subtle", "attention_scale_off", "attention scaled by 0.95"),
    faulty("subtle", "rms_norm_eps_off", "eps 1e-3 for 1e-5 in every RMSNorm"),
    faulty("subtle", "last_of_k_dropped", "the last 32 of K dropped in one down projection"),
    TrialStack(
        name="correct_operators", kind="legitimate", says="every operator replaced, rightly"
    ),
    TrialStack(
        name="bfloat16",
        kind="legitimate",
        says="bfloat16 for float32",
        planted=False,
        serve={"dtype": "bfloat16"},
    ),
    TrialStack(
        name="small_batches",
        kind="legitimate",
        says="at most 8 requests and 512 tokens in a batch",
        planted=False,
        serve={"max_num_seqs": 8, "max_num_batched_tokens": 512},
    ),
    TrialStack(
        name="one_thread",
        kind="legitimate",
        says="one core fewer",
        planted=False,
        env={"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"},
    ),
)


def changes(stacks: tuple[TrialStack, ...] = STACKS, library: Path = LIBRARY) -> Changes:
    """The committed matrix with the stacks added and the library's folder mounted."""
    mounted: dict[tuple[str, ...], Any] = {
        ("chips", "cpu", "run", "volumes"): [f"{library.parent}:{MOUNTED}:ro"]
    }
    return mounted | {("chips", "cpu", "stacks", stack.name): stack.block() for stack in stacks}
